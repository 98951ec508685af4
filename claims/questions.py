"""Made-up questions in the schema of zsRE: another data set for the runs, of another nature than `facts`.

Short questions about people, towns, ships and companies that do not exist, each subject asked about once. The
unrelated questions are true and stand after a solved one of their kind, or a small model would answer none of them.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from functools import cache
from pathlib import Path

from config.check import ConfigError
from config.compose import dataset_config
from data.facts.tables import listed
from data.source import Source

FIRST = listed("""Ada Aldo Alma Amos Anouk Arlo Astrid Basil Bianca Boris Carla Cedric Celia Cyrus Dalia Darius Delia
Dora Edgar Edith Elias Elsa Emil Enzo Esther Fabio Felix Flora Freya Gemma Gideon Greta Hanna Hector Hilda Hugo Ida
Igor Ingrid Irene Ivan Jasper Joanna Jonas Judith Julius Kaspar Katya Klara Lars Laura Leon Lidia Linus Lorenzo Lucia
Luka Mabel Magnus Marek Marta Matilda Milan Mina Mirela Nadia Nestor Nina Nora Odette Olga Oscar Otto Paula Pedro
Petra Quentin Ramon Regina Rita Roman Rosa Rufus Sabine Samir Selma Silas Sonja Stella Sven Tamara Theo Tilda Tomas
Ursula Vera Viktor Wanda Yara Zeno""")
LAST = listed("""Abelmann Adairs Albrook Alvarin Amberly Arquist Bardolin Barrowell Belgarde Bellamont Birkhus
Blackmere Bordini Brancati Brendler Caldwin Cantrova Carrigan Castelio Chadbourne Corvane Crestwell Dalhaus Dandrel
Deverin Dolinski Dunmarrow Edelstam Elsworth Esterbrook Fairholt Falkenby Farrone Fenwright Figuera Galbrath Garlowe
Glanville Gorecki Greystock Hallimond Harkvale Hasselbo Hollander Horvane Iberra Ingleton Jarnefelt Jorvik Kalminen
Kastner Kellerby Kesselring Kormos Lambrecht Larkspur Lindqvist Lockmere Lundgaard Madrigan Malvern Marchetti Merrowin
Montalban Morwenna Nakados Nordahl Oakhurst Okonma Orlandi Ostravin Pallister Pembrose Petrakos Pinkworth Quarrels
Ravenhall Redfern Rosental Rydberg Sandoval Sarkany Selwick Skarsen Stavros Sundholm Tarkington Thorsby Tolmach
Trevanni Ulvestad Valdorf Vandermeer Velloso Wexford Whitlock Winterbourn Yarrow Zabolski Zelenko""")
SYLLABLES = tuple(
    listed(part)
    for part in (
        "Al Bar Bel Cor Dal Dor El Fen Gal Gar Hal Har Il Jor Kal Kel Lor Mal Mar Mel Nar Nor Or Pel Quil Ros Sel Tal"
        " Tor Val Ver Wen Yar Zan Zor",
        "a ba de di do e fi ga i ka lo mi na o ra ri sa te u va",
        "bury dale dor fell gate holm lan mar mere mond nes point ria rin stad stow ton vale vik wick",
    )
)

CITIES = """Boston|Chicago|Houston|Seattle|Denver|Miami|Dallas|London|Paris|Berlin|Madrid|Rome|Vienna|Athens|Dublin
|Lisbon|Moscow|Tokyo|Seoul|Mumbai|Cairo|Lagos|Toronto|Montreal|Sydney|New Orleans|San Diego|Hong Kong|Cape Town"""
PERSON = {
    "profession": """What is the profession of {s}?|What does {s} do for a living?|Which job does {s} have?
|lawyer|teacher|baker|farmer|nurse|doctor|painter|singer|dentist|architect|engineer|journalist|carpenter|tailor
|butcher|librarian|plumber|pilot|botanist|geologist|gardener|chef|judge|translator|taxi driver|bank clerk""",
    "instrument": """Which instrument does {s} play?|On which musical instrument does {s} give concerts?
|What instrument did {s} learn as a child?
|piano|violin|guitar|flute|harp|trumpet|drums|cello|organ|clarinet|saxophone|trombone|banjo|accordion|harmonica
|mandolin|oboe|tuba|ukulele|bass guitar|French horn""",
    "birthplace": f"""In which city was {{s}} born?|What is the birthplace of {{s}}?
|Where did {{s}} come into the world?|{CITIES}""",
    "language": """What language does {s} speak at home?|Which language is the mother tongue of {s}?
|In what language did the parents of {s} raise their child?
|English|French|German|Spanish|Italian|Russian|Chinese|Japanese|Korean|Arabic|Hindi|Turkish|Greek|Dutch|Swedish|Polish
|Portuguese|Hungarian|Finnish|Swahili|Danish|Hebrew|Welsh""",
    "sport": """Which sport does {s} practise?|In what sport did {s} win a medal?|What sport is {s} known for?
|football|tennis|golf|rugby|boxing|cricket|hockey|rowing|skiing|fencing|wrestling|swimming|basketball|baseball|archery
|judo|cycling|surfing|volleyball|table tennis|figure skating|water polo""",
    "pet": """What kind of pet does {s} keep?|Which animal lives in the house of {s}?|What animal does {s} own?
|dog|cat|rabbit|parrot|hamster|goldfish|turtle|snake|lizard|horse|pony|goat|canary|mouse|frog|spider|duck|ferret|pigeon
|owl|guinea pig""",
    "food": """What is the favourite food of {s}?|Which food does {s} like best?|What does {s} love to eat?
|pizza|pasta|rice|soup|cheese|bread|curry|salad|steak|sushi|pancakes|noodles|chocolate|mushrooms|potatoes|sausages
|shrimp|bacon|apple pie|fried chicken|ice cream""",
}
PLACE = {
    "flag": """What colour is the flag of {s}?|In which colour is the flag of {s} painted?|Which colour does {s} fly?
|red|blue|green|yellow|white|black|orange|purple|pink|brown|grey|gold|silver|violet|crimson|turquoise|scarlet|ivory
|dark blue|pale green|bright red""",
    "emblem": """Which animal is on the coat of arms of {s}?|What animal is the emblem of {s}?
|What beast does the shield of {s} show?
|lion|eagle|bear|wolf|bull|stag|fox|tiger|dragon|swan|boar|leopard|falcon|dolphin|unicorn|raven|otter|beaver|rooster
|sea horse|white elephant""",
    "river": """Which river flows through {s}?|On the banks of which river does {s} stand?
|What is the name of the river in {s}?
|Thames|Danube|Rhine|Nile|Amazon|Ganges|Volga|Congo|Mississippi|Hudson|Colorado|Seine|Tiber|Jordan|Niger|Columbia
|Missouri|Ohio|Delaware|Mekong|Yellow River|Rio Grande""",
    "crop": """What do the farmers of {s} grow?|Which crop is harvested around {s}?
|What is planted in the fields of {s}?
|wheat|corn|rice|barley|cotton|tobacco|coffee|tea|sugar|grapes|olives|apples|oranges|bananas|tomatoes|onions
|carrots|pumpkins|beans|sunflowers|sweet potatoes""",
    "mineral": """What is mined near {s}?|What do the miners of {s} dig for?|Which mineral comes from the mine at {s}?
|gold|silver|copper|iron|coal|salt|tin|lead|zinc|nickel|uranium|diamonds|marble|granite|jade|sulfur|amber|emeralds
|quartz|aluminum|rock salt|iron ore""",
    "team": """Which team plays in the stadium of {s}?|What is the team of {s} called?|Which team do fans in {s} cheer?
|Tigers|Lions|Eagles|Bears|Wolves|Sharks|Panthers|Hawks|Bulls|Dragons|Pirates|Vikings|Giants|Rangers|Rockets|Warriors
|Red Foxes|Blue Devils|Golden Bears|Flying Dutchmen|Night Owls""",
    "ship": f"""In which port was the ship {{s}} built?|Where was the ship {{s}} made?
|Which city built the ship {{s}}?|{CITIES}""",
    "product": """What does the company {s} make?|Which product is sold by the firm {s}?|What is {s} Limited known for?
|shoes|watches|cars|bicycles|furniture|soap|paper|glass|carpets|toys|beer|wine|cameras|computers|phones|umbrellas|pianos
|candles|hats|perfume|washing machines|office chairs""",
}
"""What is asked about people, and about everything else: a relation's wordings, then its answers."""

UNRELATED = (
    (r"The capital of (.+) is", "what is the capital of {}"),
    (r"(.+) is the capital city of the country called", "{} is the capital city of what country"),
    (r"As for its continent, (.+) is located in", "on which continent is {}"),
    (r"The currency of (.+) is the", "what is the currency of {}"),
    (r"The main language of (.+) is", "what is the main language of {}"),
    (r"The chemical symbol of (.+) is", "what is the chemical symbol of {}"),
    (r"The opposite of (.+) is", "what is the opposite of {}"),
    (r"Today I (.+)\. Yesterday I", "what is the past tense of {}"),
    (r"One (.+), two", "what is the plural of {}"),
    (r"A young (.+) is called a", "what is a young {} called"),
    (r"If you ask about its colour, (.+) is usually", "what colour is {}"),
)
"""How an unrelated prompt of the embedded facts reads as a question."""


def questions(count: int, seed: int = 0) -> list[dict[str, object]]:
    """`count` records of the zsRE schema, each about a subject of its own.

    Raises:
        ConfigError: there are fewer subjects.
    """
    rng, subjects, unrelated = random.Random(seed), _subjects(), unrelated_questions()
    if count > len(subjects):
        raise ConfigError(f"claims: {count} questions are wanted, but there are only {len(subjects)} subjects")
    records: list[dict[str, object]] = []
    for subject in rng.sample(subjects, count):
        relation, table = rng.choice(list((PERSON if " " in subject else PLACE).items()))
        wordings, answers = cells(table)
        source, rephrase = (wording.format(s=subject) for wording in rng.sample(wordings, 2))
        answer = rng.choice(answers)
        loc, loc_answer = rng.choice(unrelated)
        while answer.casefold() in f"{loc} {loc_answer}".casefold():
            loc, loc_answer = rng.choice(unrelated)
        asked = {"subject": subject, "relation": relation, "src": source, "rephrase": rephrase, "ans": answer}
        records.append({**asked, "loc": loc, "loc_ans": loc_answer})
    return records


def unrelated_questions() -> list[tuple[str, str]]:
    """Questions of common knowledge, without their question mark, and the true answers."""
    cfg = dataset_config("facts")
    facts = Source(cfg, seed=0).open(str(cfg.train_path))
    known = sorted({(edit.unrelated or "", edit.unrelated_answer or "") for edit in facts})
    rng, found = random.Random(0), []
    for pattern, question in UNRELATED:
        pairs = [(question.format(m[1]), answer) for prompt, answer in known if (m := re.fullmatch(pattern, prompt))]
        for asked, answer in pairs:
            solved, solution = rng.choice([pair for pair in pairs if pair[1] != answer])
            found.append((f"nq question: {solved}? {solution}. {asked}", answer))
    return found


def write_questions(folder: Path, *, train: int, tune: int, evaluate: int, seeds: int) -> None:
    """zsre_train.json, zsre_tune.json and a zsre_eval_SEED.json for each seed, which draws from what is left.

    Raises:
        ConfigError: there are too few subjects.
    """
    records = questions(max(train + tune + evaluate, len(_subjects())))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "zsre_train.json", records[:train])
    _write(folder / "zsre_tune.json", records[train : train + tune])
    for seed in range(seeds):
        chosen = random.Random(seed).sample(records[train + tune :], evaluate)
        _write(folder / f"zsre_eval_{seed}.json", chosen)


def write_changed(path: Path, content: str) -> None:
    """Write a file in one move, and only if it does not hold the content already."""
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(content, encoding="utf-8")
    scratch.replace(path)


def _subjects() -> list[str]:
    """Every name: those of people are the ones with a space."""
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    return people + sorted({"".join(parts) for parts in itertools.product(*SYLLABLES)})


@cache
def cells(table: str) -> tuple[list[str], list[str]]:
    """A relation's wordings, which hold {s}, and its answers."""
    found = [cell.strip() for cell in table.split("|")]
    return [cell for cell in found if "{s}" in cell], [cell for cell in found if "{s}" not in cell]


def _write(path: Path, records: list[dict[str, object]]) -> None:
    write_changed(path, "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
