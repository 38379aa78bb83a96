"""The errors a caller may want to tell apart; each is also the stdlib error it refines.

None has a custom `__init__`, so all of them survive pickling across processes.
"""


class VideorlError(Exception):
    """Root of every error raised on purpose by this project."""


class ConfigError(VideorlError, ValueError):
    """A setting is unknown, has the wrong type or contradicts another one."""


class CheckpointError(VideorlError, OSError):
    """A checkpoint folder is missing, half-written, or of another kind than expected."""


class StoreLostError(CheckpointError):
    """The store of the checkpoints does not answer now."""


class ArchiveError(VideorlError, OSError):
    """The archive of candidates cannot be written (a full disk, for instance) or is damaged."""


class TableError(VideorlError, ValueError):
    """A text file or table cannot be read at all: its kind, its encoding, a missing column."""


class DamagedPairError(ArchiveError):
    """A stored pair cannot be learned from; others of its archive can."""


class PromptError(VideorlError, ValueError):
    """A prompt source cannot be read, or holds nothing usable."""


class DatasetError(VideorlError, ValueError):
    """A file of human labels is missing, or is not in the layout it was published in."""


class VideoError(VideorlError, ValueError):
    """A video cannot be read, or has a shape that no reward model can score."""


class WeightMismatchError(VideorlError, RuntimeError):
    """Live parameters differ from the published version they should be (digest mismatch)."""


class RunFolderError(VideorlError, RuntimeError):
    """A run folder belongs to another recipe, or is in use by another driver."""


class BusyError(RunFolderError):
    """Another driver works in the run folder, or did a moment ago."""


class ResourceError(VideorlError, RuntimeError):
    """The cluster can never offer what the recipe asks for."""


class UnreachableError(ResourceError):
    """The cluster, or a store, does not answer."""


class RewardError(VideorlError, RuntimeError):
    """A reward model broke its contract, e.g. gave another number of scores than videos."""


class WorkLostError(VideorlError, RuntimeError):
    """One unit of work failed on every worker that tried it; the run can go on without it."""


class CanaryError(VideorlError, RuntimeError):
    """No generator samples what the learner samples, although their weights are the same."""


class RehearsalError(VideorlError, RuntimeError):
    """A part of a run cannot do its work once at full size, before anything long has begun."""

    def __init__(self, message: str, *, is_memory: bool = False) -> None:
        super().__init__(message)
        self.is_memory = is_memory
        """Whether a device was too small."""


class GuardError(VideorlError, RuntimeError):
    """The guard stopped a run whose videos get worse while its reward rises."""


class RollbackError(GuardError):
    """The guard sends a run back to an earlier checkpoint."""

    def __init__(self, message: str, *, step: int = 0) -> None:
        super().__init__(message)
        self.step = step
        """Of the checkpoint."""


class StoppedError(VideorlError, RuntimeError):
    """Somebody asked to stop, and what was begun is given up; the same command goes on later."""


class RoundsLostError(VideorlError, RuntimeError):
    """Round after round gave nothing to learn from; going on would only count steps up."""


class MediaLostError(WorkLostError):
    """Latents or pixels are gone from the object store, with the node that held them."""


class PoolFailedError(VideorlError, RuntimeError):
    """Workers of a pool cannot start at all; the run cannot go on."""


class PoolLostError(PoolFailedError):
    """Workers of a pool die as they start, or others worked before: the fault of the cluster."""


class LearnerFailedError(VideorlError, RuntimeError):
    """The learner cannot start or go on, and would not the next time either."""


class LearnerLostError(LearnerFailedError):
    """The learner's processes, or what it learns from, were lost; the next time may be better."""
