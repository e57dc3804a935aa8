"""Finished trials in a folder, so that a search goes on where it stopped."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tfptq.base.files import write_atomically
from tfptq.exploration.trial import Proposal, Trial


class TrialFolder:
    """A folder for the trials of one search; each has a folder of its own with its weights, file and evaluation.

    Args:
        path: the folder; it is made when it is missing.
        inputs: what trials depend on beside their config: name for messages -> text.

    Raises:
        ValueError: the folder holds another search, or something else.
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, inputs: dict[str, str]):
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        known = self._path / "search.json"
        if not known.exists():
            write_atomically(known, json.dumps(inputs, indent=1) + "\n")
        stored = _read(known)
        changed = [name for name in inputs if stored.get(name) != inputs[name]]
        if changed:
            raise ValueError(
                f"{self._path} holds a search with another {', '.join(changed)}; choose another checkpoint_dir, or "
                "delete it. Samples have to come in the same order each time"
            )

    def find(self, proposal: Proposal) -> Trial | None:
        """The finished trial of a proposal."""
        record = self._folder(proposal) / "trial.json"
        return Trial.from_dict(proposal, _read(record)) if record.exists() else None

    def weights(self, proposal: Proposal) -> Path:
        """Folder for the finished weights of a proposal."""
        return self._folder(proposal) / "weights"

    def keep(self, trial: Trial, tflite: bytes) -> None:
        """Keep the file of a trial, and then what says that it is finished."""
        folder = self._folder(trial.proposal)
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "net.tflite", tflite)
        write_atomically(folder / "trial.json", json.dumps(trial.to_dict(), indent=1) + "\n")

    def _folder(self, proposal: Proposal) -> Path:
        """A name for people, and a digest of the config."""
        digest = hashlib.sha256(proposal.config.to_json().encode()).hexdigest()[:8]
        words = "".join(letter if letter.isalnum() or letter == "." else "_" for letter in proposal.name)
        return self._path / f"{words.replace('__', '_')}-{digest}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; delete it") from error
