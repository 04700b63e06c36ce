"""Work over processes, devices and machines: in chunks of equal cost, and nothing lost when something dies.

What the work is, is no business of this package: a task is a function of a list of items.
"""
