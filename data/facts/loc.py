"""Unrelated prompts with their own true answers: geography, elements and common knowledge."""

from __future__ import annotations

from data.facts import elements, world
from data.facts.tables import World

Probe = tuple[str, str]
"""(prompt, true answer)."""

NUMBERS = world.listed("""zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen""")
DAYS = world.listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = world.listed("January February March April May June July August September October November December")

OPPOSITES = """hot cold|big small|tall short|fast slow|up down|left right|day night|black white|wet dry
|open closed|happy sad|rich poor|strong weak|young old|full empty|hard soft|light dark|high low|early late
|loud quiet|clean dirty|good bad|true false|near far|buy sell|win lose|push pull|give take|begin end
|love hate|war peace|north south|east west|inside outside|first last|always never|thick thin|wide narrow
|deep shallow|heavy light|sweet sour|alive dead|brave cowardly|cheap expensive|easy difficult|safe dangerous
|smooth rough|success failure|friend enemy|question answer|summer winter|male female|king queen
|husband wife|brother sister|arrive depart|increase decrease|accept reject|ancient modern|simple complex"""

PAST = """go went|see saw|eat ate|run ran|take took|give gave|write wrote|drive drove|speak spoke|break broke
|buy bought|think thought|bring brought|teach taught|catch caught|sing sang|swim swam|drink drank|begin began
|fly flew|grow grew|know knew|throw threw|come came|fall fell|feel felt|keep kept|leave left|lose lost
|make made|meet met|sell sold|send sent|sit sat|sleep slept|stand stood|tell told|win won|build built
|choose chose"""

PLURALS = """child children|mouse mice|foot feet|tooth teeth|man men|woman women|goose geese|knife knives
|leaf leaves|wolf wolves|city cities|baby babies|box boxes|bus buses|dog dogs|book books|tree trees
|house houses|story stories|wife wives"""

YOUNG = """dog puppy|cat kitten|cow calf|horse foal|sheep lamb|pig piglet|hen chick|duck duckling|goat kid
|lion cub|deer fawn|bear cub|frog tadpole|kangaroo joey|swan cygnet|seal pup|turkey poult"""

COLOURS = """grass green|snow white|coal black|blood red|the clear daytime sky blue|a ripe lemon yellow
|a ripe banana yellow|a ripe tomato red|milk white|a carrot orange|a polar bear white|a raven black
|chocolate brown|a ruby red|an emerald green|a sapphire blue|a school bus in America yellow|salt white
|charcoal black|a flamingo pink|spinach green|an egg yolk yellow|a ripe strawberry red|cotton white"""

KINDS = """A rose is a kind of flower|An oak is a kind of tree|A salmon is a kind of fish
|A sparrow is a kind of bird|A violin is a musical instrument|A hammer is a kind of tool
|A carrot is a kind of vegetable|An apple is a kind of fruit|A python is a kind of snake
|A sofa is a piece of furniture|Chess is a kind of game|Football is a kind of sport
|A shirt is a piece of clothing
|A diamond is a precious stone|Tea is a kind of drink|A beetle is a kind of insect|Red is a kind of colour
|A sonnet is a kind of poem|A waltz is a kind of dance|A poodle is a kind of dog|A trout is a kind of fish
|A tulip is a kind of flower|A pine is a kind of tree|An eagle is a kind of bird|A banana is a kind of fruit
|An ant is a kind of insect|A cello is a musical instrument|A potato is a kind of vegetable"""

COMMON = """Water freezes and turns into ice|Bees make honey|Cows give us milk|Hens lay eggs
|Bread is baked in an oven
|A book is read, a song is sung|The sun rises in the east|The sun sets in the west|We see with our eyes
|We hear with our ears|We smell with the nose|We taste with the tongue|The heart pumps blood
|The Earth revolves around the sun|The moon orbits the Earth|Fish breathe through their gills
|Birds are covered with feathers|A spider spins a web|A doctor works in a hospital|A teacher works in a school
|A pilot flies an airplane|A baker bakes bread|A farmer works on a farm|Ice is frozen water
|A triangle has a number of sides that equals three|A square has a number of sides that equals four
|A spider has a number of legs that equals eight|An insect has a number of legs that equals six
|An hour has sixty minutes|A minute has sixty seconds|A week has seven days|A year has twelve months
|A decade has ten years|A century has a hundred years|The Great Wall is found in China
|The author of Hamlet is William Shakespeare|The largest planet of the solar system is Jupiter
|The planet known as the red planet is Mars|The planet nearest to the sun is Mercury
|The largest ocean on Earth is the Pacific|The tallest mountain on Earth is Mount Everest
|The fastest land animal is the cheetah|The largest animal on Earth is the blue whale
|The largest bird is the ostrich|The king of the jungle is the lion
|The first man on the moon was Neil Armstrong
|The theory of relativity was developed by Albert Einstein|The painter of the Mona Lisa is Leonardo da Vinci
|Plants make food by photosynthesis|The gas that we need to breathe is oxygen
|Romeo's beloved is called Juliet|Actions speak louder than words|Better late than never
|Practice makes perfect|Time is money|Knowledge is power|Honesty is the best policy
|An apple a day keeps the doctor away
|Rome was not built in a day|A picture is worth a thousand words|The early bird catches the worm
|Two heads are better than one|When in Rome, do as the Romans do|Once upon a time"""


def probes(source: World) -> dict[str, list[Probe]]:
    """Unrelated prompts by kind."""
    return {**_geography(source), **_words(), **_counting()}


def _pairs(table: str) -> list[tuple[str, str]]:
    """Each entry's last word is the answer."""
    splits = (entry.strip().rpartition(" ") for entry in table.split("|"))
    return [(prompt, answer) for prompt, _, answer in splits]


def _geography(source: World) -> dict[str, list[Probe]]:
    countries = [source.countries[iso] for iso in world.ANSWER_COUNTRIES]
    homes = [(source.countries[iso].in_text, language) for iso, language in world.LANGUAGES.items()]
    return {
        "capital": [(f"The capital of {c.in_text} is", c.capital) for c in countries if c.capital],
        "country": [(f"{c.capital} is the capital city of the country called", c.name) for c in countries if c.capital],
        "continent": [
            (f"As for its continent, {c.in_text} is located in", c.continent) for c in countries if c.continent
        ],
        "currency": [(f"The currency of {c.in_text} is the", c.currency) for c in countries if c.currency],
        "language": [(f"The main language of {name} is", language) for name, language in homes],
        "element": [(f"The chemical symbol of {e} is", s) for e, s in elements.UNTOUCHED.items()],
    }


def _words() -> dict[str, list[Probe]]:
    return {
        "opposite": [(f"The opposite of {a} is", b) for a, b in _pairs(OPPOSITES)],
        "past": [(f"Today I {a}. Yesterday I", b) for a, b in _pairs(PAST)],
        "plural": [(f"One {a}, two", b) for a, b in _pairs(PLURALS)],
        "young": [(f"A young {a} is called a", b) for a, b in _pairs(YOUNG)],
        "colour": [(f"If you ask about its colour, {a} is usually", b) for a, b in _pairs(COLOURS)],
        "kind": _pairs(KINDS),
        "common": _pairs(COMMON),
    }


def _counting() -> dict[str, list[Probe]]:
    sums = [(a, b) for a in range(1, 9) for b in range(1, 8) if a + b < len(NUMBERS)]
    return {
        "sum": [(f"{NUMBERS[a].capitalize()} plus {NUMBERS[b]} equals", NUMBERS[a + b]) for a, b in sums],
        "series": _runs(NUMBERS[1:], wrap=False),
        "calendar": _runs(DAYS, wrap=True) + _runs(MONTHS, wrap=True),
    }


def _runs(names: tuple[str, ...], wrap: bool) -> list[Probe]:
    """Three neighbours in a row; the fourth is the answer."""
    line = names + names[:3] if wrap else names
    return [(f"{a.capitalize()}, {b}, {c},", d) for a, b, c, d in zip(line, line[1:], line[2:], line[3:], strict=False)]
