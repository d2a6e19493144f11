"""Files that nobody should trust: each is refused with a sentence, and nothing is written beside it."""

import io
import json
import os
import pickle
import re
import socket
import struct
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
from test_cubes import lognormal_cubes, write_cmd, write_hdf5, write_npy, write_quijote

from uvae_lib.cubes.suite import open_cubes

Y = lognormal_cubes(3, 8).astype("f4")
GRIDS = "Grids_Mcdm_IllustrisTNG_LH_8_z=0.0.npy"
HOSTILE = {}


def hostile(found, expected, advice, **options):
    """Register a builder: it makes something under tmp_path and returns the path to open."""

    def register(build):
        HOSTILE[build.__name__.replace("_", " ")] = (build, options, (found, expected, advice))
        return build

    return register


def npy_bytes(header, version=(1, 0), data=b"\0" * 4 * 512):
    text = (header + "\n").encode("latin1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def raw_npy(path, *args, **options):
    path.write_bytes(npy_bytes(*args, **options))
    return path


def altered(path, change, i=1, kind=lambda y: y * 1e10):
    cubes = kind(Y.copy())
    change(cubes[i])
    return write_npy(path, cubes)


def with_params(folder, text, name="params_LH_IllustrisTNG.txt"):
    folder.mkdir(exist_ok=True)
    np.save(folder / GRIDS, Y)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


# --- paths -------------------------------------------------------------------------------------------------------


@hostile("no such file or folder", "cubes", "check the path")
def path_that_does_not_exist(p):
    return p / "nothing.npy"


@hostile("an empty folder", "files .npy or .hdf5", "check the path")
def empty_folder(p):
    (p / "empty").mkdir()
    return p / "empty"


@hostile("2 files, none of them cubes", "files .npy or .hdf5", "check the path")
def folder_of_something_else(p):
    (p / "notes.txt").write_text("hello")
    (p / "figure.png").write_bytes(b"\x89PNG")
    return p


@hostile("no valid path .*symbolic links", "a file or a folder", "check the path, its links")
def link_to_itself(p):
    (p / "loop.npy").symlink_to(p / "loop.npy")
    return p / "loop.npy"


@hostile("an empty folder", "files .npy or .hdf5", "check the path")
def folders_that_link_in_a_circle(p):
    (p / "a").mkdir()
    (p / "a" / "b").symlink_to(p / "a")
    return p / "a"


@hostile("a link to .*gone.npy, which does not exist", "cubes", "check the path")
def link_to_a_file_that_is_gone(p):
    (p / "link.npy").symlink_to(p / "gone.npy")
    return p / "link.npy"


@hostile("no regular file", "a file of numbers", "name a file or a folder")
def pipe(p):
    os.mkfifo(p / "pipe.npy")
    return p / "pipe.npy"


@hostile("no regular file", "a file of numbers", "name a file or a folder")
def socket_file(p):
    place = os.getcwd()
    os.chdir(p)  # names of sockets must be short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s.npy")
    os.chdir(place)
    return p / "s.npy"


@hostile("no regular file", "a file of numbers", "name a file or a folder")
def endless_device(p):
    (p / "zeros.npy").symlink_to("/dev/zero")
    return p / "zeros.npy"


@hostile("no valid path", "a file or a folder", "check the path")
def path_with_a_null_byte(p):
    return str(p / "a\0b.npy")


@hostile("File name too long", "a file or a folder", "check the path")
def name_that_is_too_long(p):
    return p / ("x" * 300)


@hostile("a simulation that is not finished", "cubes", "run `simulate` again")
def simulation_that_was_interrupted(p):
    np.save(p / "x.npy", Y)
    (p / "x.npy").rename(p / "Grids_Mcdm_JaxPM_LH_8_z=0.0.npy.partial")
    return p


@hostile("list as the path", "one file or folder", "open each by itself")
def no_path_at_all(p):
    return []


# --- files that are no arrays ------------------------------------------------------------------------------------


@hostile("an empty file", "a .npy or HDF5 file", "np.save")
def empty_file(p):
    (p / "cubes.dat").touch()
    return p / "cubes.dat"


@hostile("no readable .npy header", "a NumPy .npy file", "download it again")
def empty_npy_file(p):
    (p / "cubes.npy").touch()
    return p / "cubes.npy"


@hostile("no readable .npy header .*magic", "a NumPy .npy file", "download it again")
def wrong_magic(p):
    (p / "cubes.npy").write_bytes(b"\x93NUMPZ" + npy_bytes("{}")[6:])
    return p / "cubes.npy"


@hostile("no readable .npy header .*magic", "a NumPy .npy file", "download it again")
def web_page_instead_of_cubes(p):
    (p / GRIDS).write_text("<!DOCTYPE html><html>404 not found</html>")
    return p / GRIDS


@hostile("no readable .npy header", "a NumPy .npy file", "download it again")
def header_that_ends_early(p):
    (p / "cubes.npy").write_bytes(npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8, 8)}")[:30])
    return p / "cubes.npy"


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def header_with_code(p):
    return raw_npy(p / "cubes.npy", f"__import__('os').mkdir({str(p / 'owned')!r})")


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def header_without_a_shape(p):
    return raw_npy(p / "cubes.npy", "{'descr': '<f4', 'fortran_order': False}")


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def header_nested_without_end(p):
    return raw_npy(p / "cubes.npy", "{'descr': " + "[" * 9000)


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def header_of_a_gigabyte(p):
    (p / "cubes.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30) + b" " * 100)
    return p / "cubes.npy"


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def version_from_the_future(p):
    return raw_npy(p / "cubes.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8, 8)}", (9, 9))


@hostile("an empty array of shape", "at least one cube", "np.save")
def negative_shape(p):
    return raw_npy(p / "cubes.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (-8, 8, 8)}")


@hostile("a truncated file", "73786976294838206464|bytes for shape", "download it again")
def shape_beyond_all_memory(p):
    return raw_npy(p / "cubes.npy", f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40},) * 3}}".replace(
        f"({2**40},) * 3", f"({2**22}, {2**22}, {2**22})"))  # fmt: skip


@hostile(r"Python objects \(a pickle\)", "pickles are never opened", "np.save")
def object_array(p):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(p / "owned"),)

    with open(p / "cubes.npy", "wb") as file:
        file.write(npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (8, 8, 8)}", data=b""))
        pickle.dump(np.array([Bomb()]), file)
    return p / "cubes.npy"


@hostile("a pickle, which is never opened, .* starts with b'.*80", "a .npy or HDF5 file", "np.save")
def pickle_file(p):
    (p / "cubes.pkl").write_bytes(pickle.dumps(Y))
    return p / "cubes.pkl"


@hostile("a compressed archive", "read one by one", "np.load")
def compressed_npz_archive(p):
    np.savez_compressed(p / "cubes.npz", Y)
    return p / "cubes.npz"


@hostile("no readable .npz archive", "a whole .npz file", "download it again")
def npz_archive_that_is_cut(p):
    np.savez(p / "cubes.npz", Y)
    os.truncate(p / "cubes.npz", 3000)
    return p / "cubes.npz"


@hostile(r"Python objects \(a pickle\)", "pickles are never opened", "np.save")
def npz_archive_of_objects(p):
    np.savez(p / "cubes.npz", np.full((2, 2, 2), None))
    return p / "cubes.npz"


@hostile("no data set", "one data set of cubes", "pass dataset=")
def npz_archive_with_names_that_climb_out(p):
    with zipfile.ZipFile(p / "cubes.npz", "w") as archive:
        archive.writestr("../../escape.txt", b"x")
    return p / "cubes.npz"


@hostile("no readable .npy header", "a NumPy .npy file", "np.save")
def npz_archive_that_is_called_npy(p):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escape.npy", b"x")
    (p / "cubes.npy").write_bytes(buffer.getvalue())
    return p / "cubes.npy"


@hostile("2174 bytes, a truncated file", "bytes for shape", "download it again")
def truncated_file(p):
    path = write_npy(p / "cubes.npy", Y)
    os.truncate(path, 2174)
    return path


@hostile("6271 bytes, a truncated file", "6272 bytes", "download it again")
def file_that_lacks_its_last_byte(p):
    path = write_npy(p / GRIDS, Y)
    os.truncate(path, path.stat().st_size - 1)
    return path


# --- arrays that are no cubes ------------------------------------------------------------------------------------


@hostile("values of type complex64", "real numbers", "float32")
def complex_numbers(p):
    return write_npy(p / "cubes.npy", Y.astype("c8"))


@hostile("values of type bool", "real numbers", "float32")
def truth_values(p):
    return write_npy(p / "cubes.npy", Y > 1)


@hostile("values of type <U8", "real numbers", "float32")
def text(p):
    return write_npy(p / "cubes.npy", Y.astype("U8"))


@hostile("values of type datetime64", "real numbers", "float32")
def dates(p):
    return write_npy(p / "cubes.npy", Y.astype("i8").astype("M8[s]"))


@hostile("values of type", "real numbers", "float32")
def records(p):
    return write_npy(p / "cubes.npy", np.zeros((8, 8, 8), [("a", "f4"), ("b", "f4")]))


@hostile("an empty array of shape", "at least one cube", "np.save")
def no_cubes(p):
    return write_npy(p / "cubes.npy", np.zeros((0, 8, 8, 8), "f4"))


@hostile("an array of shape", "cubes", "give 3D cubes")
def one_number(p):
    return write_npy(p / "cubes.npy", np.float32(1))


@hostile("an array of shape", "cubes", "give 3D cubes")
def one_image(p):
    return write_npy(p / "cubes.npy", Y[0, 0])


@hostile(r"an array of shape \(8, 8, 7\)", "cubes", "cut or reshape")
def box_that_is_no_cube(p):
    return write_npy(p / "cubes.npy", Y[0, :, :, :7])


@hostile(r"an array of shape \(3, 8, 8, 4\)", "cubes", "cut or reshape")
def stack_of_boxes_that_are_no_cubes(p):
    return write_npy(p / GRIDS, Y[..., :4])


@hostile(r"an array of shape \(3, 2, 8, 8, 8\)", "cubes", "cut or reshape")
def five_dimensions(p):
    return write_npy(p / "cubes.npy", np.stack([Y, Y], axis=1))


@hostile("1 voxels a side", "at least 2", "larger cubes")
def cubes_of_one_voxel(p):
    return write_npy(p / "cubes.npy", np.array([1.0, 2.0], "f4").reshape(2, 1, 1, 1))


@hostile("cubes of several sizes: side 4 .*, side 8", "one side", "open each size by itself")
def mixed_sides(p):
    np.save(p / "a.npy", Y[0])
    np.save(p / "b.npy", Y[0, :4, :4, :4])
    return p


@hostile("a stack in Fortran order", "C order", "ascontiguousarray")
def stack_in_fortran_order(p):
    return write_npy(p / "cubes.npy", np.asfortranarray(Y))


@hostile(r"that take .* GiB each to read", "that are free", "more memory")
def cube_larger_than_memory(p):
    path = p / "cubes.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (14000,) * 3}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 14000**3)  # sparse
    return path


@hostile(r"shape \(16, 8, 8\)", "a multiple of 15", "pass format=")
def maps_that_are_not_in_fifteens(p):
    return write_npy(p / "Maps_Mcdm_SIMBA_LH_z=0.00.npy", np.ones((16, 8, 8), "f4"))


@hostile(r"shape \(15, 8, 4\)", r"\(n, N, N\)", "pass format=")
def maps_that_are_not_square(p):
    return write_npy(p / "Maps_Mcdm_SIMBA_LH_z=0.00.npy", np.ones((15, 8, 4), "f4"))


# --- numbers that are no densities -------------------------------------------------------------------------------


@hostile("cube 1 of .*1 NaN and 0 infinite voxels", "finite numbers", "leave out this cube")
def nan(p):
    return altered(p / GRIDS, lambda y: y.__setitem__((1, 2, 3), np.nan))


@hostile("cube 2 of .*0 NaN and 4 infinite voxels", "finite numbers", "leave out this cube")
def infinity(p):
    return altered(p / GRIDS, lambda y: y.__setitem__((0, 0, slice(4)), np.inf), i=2)


@hostile("cube 1 of .*8 voxels of negative density", "none below", "repair this cube")
def negative_density(p):
    return altered(p / GRIDS, lambda y: y.__setitem__((0, 0), -1e8))


@hostile("cube 1 of .*1 voxels of negative overdensity, down to -2.5e-06", "none below -2e-06", "repair")
def negative_by_more_than_rounding(p):
    return altered(p / GRIDS, lambda y: y.__setitem__((0, 0, 0), -2.5e-6), kind=lambda y: y)


@hostile("cube 0 of .*64 voxels of negative density", "none below", "another field_type=")
def negative_density_in_the_first_cube(p):
    return altered(p / GRIDS, lambda y: y.__setitem__(0, -1e9), i=0)


@hostile("negative 1 . delta, down to", "none below", "another field_type=", field_type="delta")
def contrast_below_minus_one(p):
    return altered(p / "cubes.npy", lambda y: y.__setitem__((0, 0, 0), -1.5), kind=lambda y: y - 1)


@hostile("cube 1 of .*all voxels zero", "a density that varies", "copy it again")
def all_zeros(p):
    return altered(p / GRIDS, lambda y: y.__setitem__(slice(None), 0))


@hostile("cube 0 of .*all voxels zero", "a density that varies", "copy it again")
def first_cube_all_zeros(p):
    return altered(p / GRIDS, lambda y: y.__setitem__(slice(None), 0), i=0)


@hostile("cube 1 of .*all voxels 7, a constant cube", "a density that varies", "leave out this cube")
def constant_cube(p):
    return altered(p / GRIDS, lambda y: y.__setitem__(slice(None), 7))


@hostile("values from .* with mean -", "never negative", "save their exponential")
def logarithms(p):
    return write_npy(p / "cubes.npy", np.log(Y + 1e-8) - 1)


@hostile("a mean density of -", "a positive mean", "another field_type=", field_type="density")
def negative_mean(p):
    return write_npy(p / "cubes.npy", -Y)


@hostile("1 NaN and 0 infinite", "finite numbers", "repair")
def map_with_nan(p):
    maps = np.random.default_rng(0).random((30, 8, 8)).astype("f4")
    maps[17, 3, 3] = np.nan
    return write_npy(p / "Maps_Mtot_SIMBA_LH_z=0.00.npy", maps)


@hostile("numbers too large to average", "finite numbers", "repair")
def numbers_at_the_end_of_double_precision(p):
    return write_npy(p / "cubes.npy", Y.astype("f8") * 1e307)


# --- HDF5 --------------------------------------------------------------------------------------------------------


@hostile("no readable HDF5 file", "a whole HDF5 file", "download it again")
def text_that_is_called_hdf5(p):
    (p / "cubes.hdf5").write_text("hello")
    return p / "cubes.hdf5"


@hostile("no readable HDF5 file", "a whole HDF5 file", "download it again")
def truncated_hdf5(p):
    path = write_hdf5(p / "cubes.hdf5", "data", Y)
    os.truncate(path, path.stat().st_size // 2)
    return path


@hostile("no data set", "one data set of cubes", "pass dataset=")
def hdf5_without_a_data_set(p):
    with h5py.File(p / "cubes.h5", "w") as file:
        file.create_group("empty")
    return p / "cubes.h5"


@hostile(r"df \(3, 8, 8, 8\)", "data set 'rho'", "pass dataset=", dataset="rho")
def hdf5_without_the_data_set_that_was_named(p):
    return write_hdf5(p / "cubes.hdf5", "df", Y)


@hostile("gas .*, stars ", "one data set of cubes", "pass dataset=")
def hdf5_with_several_data_sets(p):
    write_hdf5(p / "cubes.hdf5", "gas", Y)
    with h5py.File(p / "cubes.hdf5", "a") as file:
        file["stars"] = Y
    return p / "cubes.hdf5"


@hostile("Python objects", "real numbers", "float32")
def hdf5_with_text(p):
    with h5py.File(p / "cubes.hdf5", "w") as file:
        file.create_dataset("data", (8, 8, 8), h5py.string_dtype())
    return p / "cubes.hdf5"


@hostile("that take .* GiB each", "that are free", "more memory")
def hdf5_that_promises_a_huge_cube(p):
    with h5py.File(p / "cubes.hdf5", "w") as file:
        file.create_dataset("data", (20000,) * 3, "f4", chunks=(16, 16, 16), compression="gzip")
    return p / "cubes.hdf5"


@hostile("unreadable data in data", "a whole HDF5 file", "download it again")
def hdf5_with_damaged_chunks(p):
    with h5py.File(p / "cubes.hdf5", "w") as file:
        chunk = file.create_dataset("data", data=Y, chunks=(1, 8, 8, 8), compression="gzip")
        offset, size = chunk.id.get_chunk_info(0).byte_offset, chunk.id.get_chunk_info(0).size
    with open(p / "cubes.hdf5", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)
    return p / "cubes.hdf5"


# --- parameters --------------------------------------------------------------------------------------------------


@hostile("2 rows of parameters", "3, one for each cube", "matching table")
def parameters_of_another_length(p):
    return with_params(p / "f", "0.3 0.8 1 1 1 1\n" * 2)


@hostile("'high' in line 2", "a finite number", "leave out names")
def parameters_that_are_words(p):
    return with_params(p / "f", "0.3 0.8\n0.3 high\n0.3 0.8\n")


@hostile("rows that are numbered 2, 0, 1", "row i for cube i", "sort the table", params="{p}/f/mine.csv")
def parameters_whose_numbers_contradict_their_order(p):
    return with_params(p / "f", ",Omega_m\n2,0.3\n0,0.4\n1,0.5\n", "mine.csv")


@hostile("3 values in line 2", "2, as before", "repair that line")
def parameters_in_a_ragged_table(p):
    return with_params(p / "f", "0.3 0.8\n0.3 0.8 1.0\n0.3 0.8\n")


@hostile("no rows", "one row of parameters", "check the file")
def parameters_in_an_empty_file(p):
    return with_params(p / "f", "")


@hostile("'nan' in line 2", "a finite number", "with the numbers")
def parameters_with_nan(p):
    return with_params(p / "f", "0.3 0.8\nnan 0.8\n0.3 0.8\n")


@hostile("no readable table", "UTF-8 text", "save it again")
def parameters_in_binary(p):
    return with_params(p / "f", bytes(range(128, 256)))


@hostile("column a twice", "every name once", "rename")
def parameters_with_one_name_twice(p):
    return with_params(p / "f", "# a a\n1 2\n1 2\n1 2\n")


@hostile("Python objects", "pickles are never opened", "save it again", params="{p}/params.npy")
def parameters_as_a_pickle(p):
    np.save(p / "params.npy", np.array([{}], dtype=object), allow_pickle=True)
    return write_npy(p / "cubes.npy", Y)


@hostile("no numbers", "numbers", "leave out", params=pd.DataFrame({"name": ["a", "b", "c"]}))
def parameters_as_a_frame_of_words(p):
    return write_npy(p / "cubes.npy", Y)


@hostile("no such file or folder", "cubes", "check the path", params="{p}/nothing.txt")
def parameters_from_a_file_that_is_not_there(p):
    return write_npy(p / "cubes.npy", Y)


@hostile("5 rows of parameters", "more than 7, the highest realization", "matching table")
def parameters_that_end_before_the_last_realization(p):
    write_quijote(p / "latin_hypercube", Y, [0, 3, 7])
    np.savetxt(p / "latin_hypercube_params.txt", np.ones((5, 5)))
    return p


# --- names and options -------------------------------------------------------------------------------------------


@hostile("set CV", "set 'LH'", "pass set_name=", set_name="LH")
def set_that_is_not_there(p):
    return write_cmd(p, Y, set_name="CV").parent


@hostile("set 1P, CV", "one set", "pass set_name=")
def several_sets_without_lh(p):
    write_cmd(p, Y, set_name="CV")
    return write_cmd(p, Y, set_name="1P").parent


@hostile("field Mcdm", "field 'HI'", "pass field=", field="HI")
def field_that_is_not_there(p):
    return write_cmd(p, Y).parent


@hostile("suite IllustrisTNG, SIMBA", "one suite", "name the file itself")
def several_suites_in_a_folder(p):
    write_cmd(p, Y)
    return write_cmd(p, Y, suite="SIMBA").parent


@hostile("df_m_8_CIC_z=0.npy, df_m_8_PCS_z=0.npy", "one field", "pass field=")
def several_assignment_schemes(p):
    write_quijote(p, Y, [0, 1, 2], "df_m_8_CIC_z=0.npy")
    write_quijote(p, Y, [0, 1, 2], "df_m_8_PCS_z=0.npy")
    return p


@hostile("an unknown format", "cmd-grids, cmd-maps, quijote, hdf5, npy", "choose one", format="fits")
def format_that_nobody_knows(p):
    return write_cmd(p, Y)


@hostile("no Quijote folders", "df_m_", "leave format= out", format="quijote")
def format_that_does_not_fit_the_folder(p):
    return write_cmd(p, Y).parent


@hostile("an unknown field_type", "density, delta, overdensity, counts", "choose one", field_type="Density")
def field_type_that_nobody_knows(p):
    return write_cmd(p, Y)


@hostile("an unknown check", "auto, full, sample", "choose one", check="maybe")
def check_that_nobody_knows(p):
    return write_cmd(p, Y)


@hostile("a box size of -25", "a positive number", "box_size= in Mpc/h", box_size=-25)
def negative_box(p):
    return write_cmd(p, Y)


@hostile("a box size of '25 Mpc'", "a positive number", "box_size= in Mpc/h", box_size="25 Mpc")
def box_with_a_unit(p):
    return write_cmd(p, Y)


@hostile("no number settings.box_size", "the record of a simulation", "restore it")
def damaged_record_of_a_simulation(p):
    (p / "simulation_LH_8.json").write_text(json.dumps({"settings": []}))
    return write_cmd(p, Y, suite="JaxPM")


@hostile("list as the path", "one file or folder", "open each by itself")
def several_suites_together(p):
    return [write_cmd(p, Y)]


@hostile("normalize=False without a check", "a check", 'check="full"', normalize=False, check=False)
def common_mean_without_a_check(p):
    return write_cmd(p, Y)


def listing(folder):
    """Every name below a folder, with size and time of the files."""
    return {p: None if p.is_dir() else (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_a_sentence_and_nothing_is_written(tmp_path, name):
    build, options, (found, expected, advice) = HOSTILE[name]
    path = build(tmp_path)
    options = {k: v.replace("{p}", str(tmp_path)) if isinstance(v, str) else v for k, v in options.items()}
    before = listing(tmp_path)
    with pytest.raises(ValueError) as caught:
        open_cubes(path, **options)
    sentence = re.fullmatch(r"(.*: found .*); expected (.*); (.*)", str(caught.value), re.DOTALL)
    assert re.search(found, sentence[1]) and re.search(expected, sentence[2]) and re.search(advice, sentence[3])
    assert listing(tmp_path) == before


def test_there_are_at_least_sixty_of_them():
    assert len(HOSTILE) >= 60


def test_a_missing_path_is_also_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        open_cubes(tmp_path / "nothing")


@pytest.mark.parametrize("left", [0, 100, 4000])
def test_a_file_that_shrinks_while_it_is_read_ends_in_a_sentence(tmp_path, left):
    path = write_cmd(tmp_path, Y)
    suite = open_cubes(path)
    os.truncate(path, left)
    with pytest.raises(ValueError, match=rf"found {left} bytes while reading, 6272 when .*; wait for the copy"):
        suite.overdensity(0)


def test_an_hdf5_file_that_changes_while_it_is_read_ends_in_a_sentence(tmp_path):
    path = write_hdf5(tmp_path / "cubes.hdf5", "data", Y)
    suite = open_cubes(path, box_size=8)
    os.truncate(path, 3000)
    with pytest.raises(ValueError, match="found 3000 bytes while reading"):
        suite.overdensity(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_and_a_file_without_permission_are_refused(tmp_path):
    path = write_cmd(tmp_path / "closed", Y)
    path.chmod(0)
    with pytest.raises(ValueError, match="no permission to read it; expected a readable file; chmod"):
        open_cubes(path)
    path.parent.chmod(0)
    try:
        with pytest.raises(ValueError, match="a folder that cannot be read"):
            open_cubes(path.parent)
    finally:
        path.parent.chmod(0o700)


def test_a_circle_of_links_beside_cubes_does_no_harm(tmp_path):
    write_cmd(tmp_path / "CMD" / "IllustrisTNG", Y)
    (tmp_path / "CMD" / "again").symlink_to(tmp_path / "CMD")
    (tmp_path / "CMD" / "loop").symlink_to(tmp_path / "CMD" / "loop")
    assert open_cubes(tmp_path / "CMD").n_cubes == 3
