"""Where the header of the C API is."""


def get_include() -> str:
    """Return the folder that holds ``fastlstm.h``, the header of the C API.

    It is the header of this package's own C core, and so of the same version. The library for
    C and C++ programs is built from the sources: see ``docs/how-to/c_api.md``.
    """
    from pathlib import Path  # half of what importing the package would take

    package = Path(__file__).parent
    installed, checkout = package / "include", package.parent / "src_c"
    return str(installed if installed.is_dir() else checkout)
