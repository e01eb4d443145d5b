"""Analysis: questions put to the ledger, and the pictures that answer them.

frames.py   aggregates, made in DuckDB, small enough to draw    theme.py    colours and type, light and dark
charts.py   one function a chart                                picture.py  a chart that shows and saves itself offline
"""
