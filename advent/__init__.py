"""Data, models, training and evaluation; unsupervised domain adaptation on RGB (ADVENT's interface).

This is the project's own implementation of ADVENT's interface. It is not the package of that name on the
package index, and not a clone of ADVENT's repository; `daf.import_check` detects when one of them is imported instead.
"""

__version__ = "0.2.0"
