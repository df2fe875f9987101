"""Ground floor: what every stage needs, and adaptation on RGB alone.

This is the project's own implementation of ADVENT's interface. It is not the package of that name on the
package index, and not a clone of ADVENT's repository; `daf.own_advent` notices when one of them is in the way.
"""

__version__ = "0.1.0"
