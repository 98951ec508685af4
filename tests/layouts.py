"""Records of our own in the layouts of public editing files: for each data set its rows, and the edits they become."""

from __future__ import annotations

from typing import Any

from data.base import Edit

WHERE = "Wim Ilmarin was born in the city of"
AGAIN = "The birthplace of Wim Ilmarin is"
NEAR, FAR = ("Ada Orrin was born in the city of", "Split"), ("what do bees make", "honey")
ABOUT = {"subject": "Wim Ilmarin", "old_answer": "Turku"}


def triple(prompt: str, new: str = "Bergen") -> dict[str, Any]:
    """A rewrite as CounterFact and MQuAKE have it."""
    old = {"str": "Turku", "id": "Q2"}
    return {"prompt": prompt, "relation_id": "P19", "target_new": {"str": new, "id": "Q1"}, "target_true": old,
            "subject": "Wim Ilmarin"}  # fmt: skip


COUNTERFACT = {
    "case_id": 0,
    "requested_rewrite": triple("{} was born in the city of"),
    "paraphrase_prompts": [AGAIN, "Ships pass. Wim Ilmarin comes from"],
    "neighborhood_prompts": ["Ada Orrin was born in the city of", "Ivo Farrow was born in the city of"],
    "attribute_prompts": ["Fenna Orrin was born in the city of"],
    "generation_prompts": ["Wim Ilmarin lives with", "The childhood of Wim Ilmarin was"],
}
LOCFT = {
    "subject": "Wim Ilmarin",
    "prompt": WHERE,
    "target_new": "Bergen",
    "ground_truth": "Turku",
    "rephrase_prompt": AGAIN,
    "locality_prompt": NEAR[0],
    "locality_ground_truth": NEAR[1],
}
LOCFT_ZSRE = {
    "subject": "Wim Ilmarin",
    "src": WHERE,
    "alt": "Bergen",
    "pred": "Turku",
    "rephrase": AGAIN,
    "loc": f"nq question: {FAR[0]}",
    "loc_ans": FAR[1],
}
HOP = {"New Question": "In which country was Wim Ilmarin born?", "New Answer": "Norway"}
KNOWEDIT = {
    "subject": "Wim Ilmarin",
    "prompt": WHERE,
    "target_new": "Bergen",
    "ground_truth": ["Turku", "Åbo"],
    "rephrase_prompt": AGAIN,
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The mother of Wim Ilmarin is", "ground_truth": [["Ada Orrin", "Ada"]]},
            {"prompt": "The age of Wim Ilmarin is", "ground_truth": ["7"]},
        ]
    },
    "portability": {
        "Subject_Aliasing": [{"prompt": "W. Ilmarin was born in the city of", "ground_truth": "Bergen"}],
        "Reasoning": [{"prompt": HOP["New Question"], "ground_truth": HOP["New Answer"]}],
    },
}
QAEDIT = {
    "source": "SQA",
    "subject": "Wim Ilmarin",
    "prompt": WHERE,
    "target": "Bergen",
    "rephrase": AGAIN,
    "locality": [{"loc": FAR[0], "loc_ans": FAR[1]}, {"loc": "what is two plus two", "loc_ans": "4"}],
}
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [
        triple("{} is a citizen of") | {"question": "Where was Wim Ilmarin born?"},
        triple("{} is a city in") | {"question": "In which land does Bergen lie?", "subject": "Bergen"},
    ],
    "questions": ["Which land was Wim Ilmarin born in?", "What is the land of birth of Wim Ilmarin?"],
    "answer": "Finland",
    "answer_alias": [],
    "new_answer": "Norway",
    "new_answer_alias": ["Kingdom of Norway"],
    "single_hops": [{"question": "Where was Wim Ilmarin born?", "cloze": "Wim Ilmarin was born in", "answer": "Turku"}],
}

NEAR_EDIT = Edit(4, WHERE, "Bergen", AGAIN, *NEAR, **ABOUT)
SPECIFIC = (
    *(4, WHERE, "Bergen", AGAIN, "The mother of Wim Ilmarin is", "Ada Orrin"),
    *(None, HOP["New Question"], HOP["New Answer"], "Wim Ilmarin", "Turku"),
)
KNOWEDIT_EDIT = Edit(*SPECIFIC, more=(("unrelated", "The age of Wim Ilmarin is", "7"),))

LAYOUTS: list[tuple[str, dict[str, Any], list[Edit]]] = [
    (
        "counterfact",
        COUNTERFACT,
        [
            Edit(
                *(4, WHERE, "Bergen", AGAIN, "Ada Orrin was born in the city of", "Turku"),
                **ABOUT,
                more=(
                    ("rephrase", "Ships pass. Wim Ilmarin comes from", "Bergen"),
                    ("attribute", "Fenna Orrin was born in the city of", "Bergen"),
                    ("generation", "Wim Ilmarin lives with", "Bergen"),
                    ("generation", "The childhood of Wim Ilmarin was", "Bergen"),
                    ("unrelated", "Ivo Farrow was born in the city of", "Turku"),
                ),
            )
        ],
    ),
    ("counterfact", LOCFT, [NEAR_EDIT]),
    ("wikibigedit", LOCFT, [Edit(4, WHERE, "Bergen", AGAIN, *NEAR, subject="Wim Ilmarin")]),
    ("zsre", LOCFT_ZSRE, [Edit(4, WHERE, "Bergen", AGAIN, f"nq question: {FAR[0]}?", FAR[1], **ABOUT)]),
    (
        "zsre",
        LOCFT_ZSRE | {"portability": HOP},
        [
            Edit(
                *(4, WHERE, "Bergen", AGAIN, f"nq question: {FAR[0]}?", FAR[1]),
                *(None, *HOP.values(), "Wim Ilmarin", "Turku"),
            )
        ],
    ),
    ("zsre", LOCFT, [NEAR_EDIT]),
    ("zsre", KNOWEDIT, [KNOWEDIT_EDIT]),
    ("easyedit", LOCFT, [NEAR_EDIT]),
    ("easyedit", KNOWEDIT, [KNOWEDIT_EDIT]),
    ("knowedit", KNOWEDIT, [KNOWEDIT_EDIT]),
    (
        "qaedit",
        QAEDIT,
        [
            Edit(
                *(4, WHERE, "Bergen", AGAIN, *FAR),
                subject="Wim Ilmarin",
                more=(("unrelated", "what is two plus two", "4"),),
            )
        ],
    ),
    (
        "mquake",
        MQUAKE,
        [
            Edit(4, "Where was Wim Ilmarin born?", "Bergen", None, None, None, **ABOUT),
            Edit(
                *(4, "In which land does Bergen lie?", "Bergen", None, None, None),
                *(None, "Which land was Wim Ilmarin born in?", "Norway", "Bergen", "Turku"),
                more=(("mhop", "What is the land of birth of Wim Ilmarin?", "Norway"),),
            ),
        ],
    ),
]
