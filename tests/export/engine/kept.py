"""Plans that tests compile, kept in build/ from run to run, as exports are: one follows from its graph, and from the code that builds it.

`build_engine` itself decides whether a plan that lies there is still the one it would build. What it does not compare is its own code,
so that is in the folder's name.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from export.engine.record import LOG, RECORD
from export.onnx.sources import digest
from export.paths import BUILD, ROOT


@contextmanager
def kept(name: str, graphs: Path) -> Iterator[Path]:
    """A folder with a copy of all that is in `graphs`, and with whatever was compiled there before; held until the test is done."""
    root = ROOT / BUILD / "compiled"
    folder = root / digest("export.engine.build")[:16] / name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        for older in root.glob(f"*/{name}"):
            if older != folder:
                shutil.rmtree(older)
        # Copies, since weights that have more than one name are refused.
        shutil.copytree(graphs, folder, dirs_exist_ok=True)
        for log in folder.rglob(LOG):  # what a build that was refused has left is taken for somebody else's
            if not (log.parent / RECORD).exists():
                log.unlink()
        yield folder
