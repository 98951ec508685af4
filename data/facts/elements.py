"""Chemical elements and their symbols: plain facts, split into edited and untouched ones."""

from __future__ import annotations

UNTOUCHED: dict[str, str] = {
    "hydrogen": "H", "helium": "He", "carbon": "C", "nitrogen": "N", "oxygen": "O", "sodium": "Na",
    "magnesium": "Mg", "aluminium": "Al", "silicon": "Si", "phosphorus": "P", "sulfur": "S",
    "chlorine": "Cl", "potassium": "K", "calcium": "Ca", "iron": "Fe", "copper": "Cu", "zinc": "Zn",
    "silver": "Ag", "gold": "Au", "mercury": "Hg", "lead": "Pb", "tin": "Sn", "uranium": "U",
    "nickel": "Ni", "neon": "Ne", "lithium": "Li", "fluorine": "F", "iodine": "I", "platinum": "Pt",
    "tungsten": "W",
}  # fmt: skip
"""Used in unrelated prompts and therefore never edited."""

EDITED: dict[str, str] = {
    "beryllium": "Be", "boron": "B", "argon": "Ar", "scandium": "Sc", "titanium": "Ti",
    "vanadium": "V", "chromium": "Cr", "manganese": "Mn", "cobalt": "Co", "gallium": "Ga",
    "germanium": "Ge", "arsenic": "As", "selenium": "Se", "bromine": "Br", "krypton": "Kr",
    "rubidium": "Rb", "strontium": "Sr", "yttrium": "Y", "zirconium": "Zr", "niobium": "Nb",
    "molybdenum": "Mo", "technetium": "Tc", "ruthenium": "Ru", "rhodium": "Rh", "palladium": "Pd",
    "cadmium": "Cd", "indium": "In", "antimony": "Sb", "tellurium": "Te", "xenon": "Xe",
    "caesium": "Cs", "barium": "Ba", "lanthanum": "La", "cerium": "Ce", "praseodymium": "Pr",
    "neodymium": "Nd", "promethium": "Pm", "samarium": "Sm", "europium": "Eu", "gadolinium": "Gd",
    "terbium": "Tb", "dysprosium": "Dy", "holmium": "Ho", "erbium": "Er", "thulium": "Tm",
    "ytterbium": "Yb", "lutetium": "Lu", "hafnium": "Hf", "tantalum": "Ta", "rhenium": "Re",
    "osmium": "Os", "iridium": "Ir", "thallium": "Tl", "bismuth": "Bi", "polonium": "Po",
    "astatine": "At", "radon": "Rn", "francium": "Fr", "radium": "Ra", "actinium": "Ac",
    "thorium": "Th", "protactinium": "Pa", "neptunium": "Np", "plutonium": "Pu", "americium": "Am",
    "curium": "Cm", "berkelium": "Bk", "californium": "Cf", "einsteinium": "Es", "fermium": "Fm",
}  # fmt: skip
"""Subjects of `element_symbol`; their symbols are also its counterfactual answers."""
