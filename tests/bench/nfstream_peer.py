"""NFStream over one capture, as a Python user runs it: every flow labelled by nDPI. Run by build/bench-venv's Python.

In: a capture's path. Out: the number of flows on stdout.
"""

import sys

from nfstream import NFStreamer  # type: ignore[import-not-found,unused-ignore]

if __name__ == "__main__":
    streamer = NFStreamer(source=sys.argv[1], statistical_analysis=False, n_dissections=20, n_meters=1)
    print(sum(1 for _ in streamer))
