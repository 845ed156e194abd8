"""The native engine: posix to posix on this machine, with descriptors all the way.

A call of `mover` plans in one pass over both trees (`plan`, `tree`, `compare`, `hardlinks`,
`removal`) and writes down what is to be done (`spool`, `records`). `copying` acts on it: in this
process, or in forked `executors` that it feeds with `batches`, over a `board` of shared memory and
a `channel`. A file is put in place by `quickcopy`, `filecopy` or, a big one, in `parts`; `content`,
`sparse` and `attributes` say how. Then `finishing` completes directories, and `durable` waits for
the storage. `checking` compares, `removing` removes, `ageing` tells how old files are.
"""

from dms_scheduler.movers.native.mover import NativeMover

__all__ = ["NativeMover"]
