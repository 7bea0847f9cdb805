"""A name becomes files that are what they claim to be: cached, fetched, brought, or refused."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from shutil import copyfile, copytree
from tempfile import TemporaryDirectory
from threading import Semaphore, Thread
from urllib.parse import urlsplit

from ... import __version__
from ...converters.files import folder_for, replacing
from ...proto.errors import StorageError, UsageError, ZooError
from . import store
from .download import Policy
from .events import Event, Listener, Stop, silent
from .lock import lock_path
from .recipe import convert as run_recipe
from .recipe import obstacle
from .registry import load_registry
from .schema import Entry
from .work import Options, Work

PARALLEL = 4
GRACE = 2.0  # Seconds for downloads to let go of what they hold.
LONGEST = 86400.0  # Seconds without data; sockets take no infinity.


def fetch(
    name: str,
    *,
    registry: str | Path | Sequence[str | Path] = (),
    dest: str | Path | None = None,
    from_file: str | Path | None = None,
    offline: bool | None = None,
    mirrors: str | Sequence[str] = (),
    trust_on_first_use: bool = False,
    locked: bool = False,
    accept_license: bool = False,
    convert: bool = False,
    retries: int = 5,
    timeout: float = 30.0,
    lock: str | Path | None = None,
    on_event: Listener = silent,
) -> Path:
    """Fetch an entry of the registry; return its weights file, or the folder of its files.

    Parameters
    ----------
    name
        An entry or alias; ``deeplab-zoo list`` shows all.
    registry
        Registry files beside the shipped one and those of ``DEEPLAB_ZOO_REGISTRY``.
    dest
        A folder to put copies of the files in, or of the converted file as NAME.safetensors; the
        path returned is there. Another file of that name is an error.
    from_file
        Take the file, or of several files the folder, from here instead of the network.
    offline
        Open no connection. None: as ``DEEPLAB_ZOO_OFFLINE`` says.
    mirrors
        Addresses of folders to try first, for ``<mirror>/<entry>/<file>``.
    trust_on_first_use
        Take files that have no known digest, and record theirs in the lock file.
    locked
        Take nothing that is not in the lock file.
    accept_license
        Accept a licence that asks for it.
    convert
        Convert the files to a native model's weights, and return that file.
    retries, timeout
        Attempts after the first at each source; seconds without data that count as a failure.
    lock
        The lock file, if not the one in force.
    on_event
        Is called with what happens, from several threads.

    Raises
    ------
    ZooError
        See its children for what can be wrong; ``exit_code`` tells them apart.

    """
    if offline is None:
        offline = os.environ.get("DEEPLAB_ZOO_OFFLINE", "0") not in ("", "0")
    own = (registry,) if isinstance(registry, (str, Path)) else registry
    mirrors = (mirrors,) if isinstance(mirrors, str) else tuple(mirrors)
    for mirror in mirrors:
        if urlsplit(mirror).scheme not in ("https", "http", "file"):
            raise UsageError(f"mirror {mirror}: expected an address, https://... or file://...")
    if retries < 0 or not 0 < timeout <= LONGEST:
        raise UsageError(
            f"retries {retries}, timeout {timeout}: expected 0 or more, and up to {LONGEST:.0f} s."
        )
    entry = load_registry(own).find(name)
    options = Options(
        from_file=Path(from_file) if from_file else None,
        offline=offline,
        mirrors=mirrors,
        trust=trust_on_first_use,
        locked=locked,
        accept_license=accept_license,
        policy=Policy(retries=retries, timeout=timeout),
        lock=Path(lock) if lock else lock_path(),
    )
    if convert and (reason := obstacle(entry)):
        raise ZooError(f"{entry.name}: cannot be loaded: {reason}.")
    folder = fetch_entry(entry, options, on_event)
    if convert:
        path = converted(entry, folder, on_event)
        made = path.parent != folder
        return _copied(path, dest, f"{entry.name}{path.suffix}" if made else path.name)
    files = [_copied(folder / name, dest, name) for name in entry.filenames]
    if entry.recipe is not None:
        return files[0].with_name(entry.recipe.weights)
    return files[0] if len(files) == 1 else files[0].parent


def fetch_entry(entry: Entry, options: Options, listen: Listener = silent) -> Path:
    """Have all files of an entry in a store; return the folder that holds them."""
    stop = Stop()
    for root in (*store.extra_roots(), store.cache_folder()):
        work = [Work(entry, one, options, listen, root, stop) for one in entry.artifacts]
        # A file that is brought is to be checked, whatever is here.
        if options.from_file is None and all(one.is_cached() for one in work):
            return work[0].folder
    # The last store is the user's own: what is missing comes there.
    if len(work) == 1:
        work[0].bring()
        return work[0].folder
    _at_once([one.bring for one in work], stop)
    return work[0].folder


def _at_once(jobs: Sequence[Callable[[], None]], stop: Stop) -> None:
    """Do jobs in threads; the first error ends them all.

    A server may keep a thread waiting, and so may another process's lock: those that do not end in
    `GRACE` seconds are left alone, and end with the process. What they hold, the next one takes.
    """
    turn = Semaphore(PARALLEL)
    ends: SimpleQueue[BaseException | None] = SimpleQueue()

    def run(job: Callable[[], None]) -> None:
        try:
            with turn:
                if not stop.is_set():
                    job()
        except BaseException as error:  # For the thread that waits.
            ends.put(error)
        else:
            ends.put(None)

    threads = [Thread(target=run, args=(job,), daemon=True) for job in jobs]
    try:
        for one in threads:
            one.start()
        for _ in threads:
            if (error := ends.get()) is not None:
                raise error
    finally:
        stop.set()
        last = time.monotonic() + GRACE
        for one in threads:
            if one.ident is not None:
                one.join(max(0.0, last - time.monotonic()))


def converted(entry: Entry, folder: Path, listen: Listener = silent) -> Path:
    """Return an entry's files as a native model's weights file, converting them once."""
    recipe = entry.recipe
    if recipe is not None and recipe.convert == "native":
        return folder / recipe.weights
    root = store.cache_folder()
    stamps = [store.read_stamp(folder.parents[1], entry.owner, name) for name in entry.filenames]
    made_of = [__version__, repr(recipe), entry.numerics]
    made_of += [stamp.digests["sha256"] if stamp else None for stamp in stamps]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    out = root / "converted" / entry.name / f"{key}.safetensors"
    if not out.exists():
        with store.disk(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        run_recipe(entry, folder, out)
    listen(Event("done", out.name, {"path": str(out), "words": "converted"}))
    return out


def _copied(path: Path, dest: str | Path | None, name: str) -> Path:
    """Copy a file or folder to where it is wanted, if that is said; return the one to use."""
    if not dest:
        return path
    target = folder_for(Path(dest)) / name
    if target.exists():
        if store.digests_of(target, ()) != store.digests_of(path, ()):
            raise UsageError(
                f"{target}: is there already, and something else than {path}. Move it away, or "
                "name another folder for the copies."
            )
        return target
    if path.is_dir():
        try:
            with TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
                copytree(path, Path(temporary) / name).rename(target)
        except OSError as error:
            if target.exists():  # Another process was quicker.
                return _copied(path, dest, name)
            raise StorageError(f"{target}: cannot be written: {error.strerror or error}.") from None
    else:
        with replacing(target, path.stat().st_size) as temporary_file:
            copyfile(path, temporary_file)
    return target
