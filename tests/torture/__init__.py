"""Runs that are killed, pulled the plug, started twice and resumed, against runs that nobody touched: see __main__."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
