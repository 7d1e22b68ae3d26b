"""How a C program is linked with this Python: flags for the compiler."""

import sysconfig


def main() -> None:
    folder, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    include = sysconfig.get_paths()["include"]
    print(f"-I{include} -L{folder} -Wl,-rpath,{folder} -lpython{version}")


if __name__ == "__main__":
    main()
