"""How much travels to a machine with a GPU: the pack, the repository, and the folder shared/ where there is one."""

import pathlib
import subprocess

MIB = 1 << 20
# Such a machine takes 64 MiB; what is left is for what a session adds.
WITH_REPOSITORY = 40
WITH_SHARED = 60


def repository_bytes(root):
    """The files that git tracks."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True).stdout
    paths = [root / name.decode() for name in listed.split(b"\0") if name]
    return sum(path.lstat().st_size for path in paths if path.exists())


def shared_bytes(root):
    """The folder shared/ in the checkout or beside it; 0 where there is none."""
    for folder in (root / "shared", root.parent / "shared"):
        if folder.is_dir():
            return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return 0


def check(root, archive, networks):
    """Tells the sizes; the bounds that a pack of networks exceeds, by name. A pack of NCCL has none."""
    pack, repository, shared = pathlib.Path(archive).stat().st_size, repository_bytes(root), shared_bytes(root)
    sizes = {"pack": pack, "repository": repository, "shared/": shared}
    told = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in sizes.items())
    print(f"gpu-pack: {told}, together {sum(sizes.values()) / MIB:.1f} MiB")
    if not networks:
        return []
    problems = []
    for what, size, most in [
        ("pack and repository", pack + repository, WITH_REPOSITORY),
        ("pack, repository and shared/", pack + repository + shared, WITH_SHARED),
    ]:
        if size >= most * MIB:
            problems.append(f"{what} are {size / MIB:.1f} MiB, and must stay under {most} MiB: pack fewer networks")
    return problems
