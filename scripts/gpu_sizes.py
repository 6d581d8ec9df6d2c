"""How much travels to a machine with a GPU: the pack, the repository, and the folder shared/ where there is one."""

import pathlib
import subprocess

MIB = 1 << 20
# Such a machine takes 64 MiB; what is left is for what a session adds.
WITH_REPOSITORY = 40
WITH_SHARED = 60
# A pack of NCCL travels alone.
NCCL_WITH_REPOSITORY = 64


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
    """Tells the sizes; the bounds that the pack exceeds, by name."""
    pack, repository, shared = pathlib.Path(archive).stat().st_size, repository_bytes(root), shared_bytes(root)
    sizes = {"pack": pack, "repository": repository, "shared/": shared}
    told = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in sizes.items())
    print(f"gpu-pack: {told}, together {sum(sizes.values()) / MIB:.1f} MiB")
    help = "pack fewer networks" if networks else "scripts/slim-nccl makes a small one"
    bounds = [("pack and repository", pack + repository, WITH_REPOSITORY if networks else NCCL_WITH_REPOSITORY)]
    if networks:
        bounds.append(("pack, repository and shared/", pack + repository + shared, WITH_SHARED))
    return [
        f"{what} are {size / MIB:.1f} MiB, and must stay under {most} MiB: {help}"
        for what, size, most in bounds
        if size >= most * MIB
    ]
