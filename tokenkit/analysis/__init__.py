"""Analysis: questions put to the ledger, and the pictures that answer them.

frames.py, answers.py    aggregates, made in DuckDB        charts.py, drawings.py   one function a chart
picture.py               shows and saves itself offline    theme.py, tables.py      how charts and frames look
totals.py, repricing.py, reconciling.py    what was spent, at other prices, against a provider's export
cube.py, replay.py       another policy over the log       estimates.py, advice.py  its outcome, and whether to switch
learning.py, wording.py  a policy learned from ratings
"""
