"""What each metric name means, for the page and the tables."""

from __future__ import annotations

TOKENS = "token accuracy, teacher-forced"

PROTOCOLS = dict.fromkeys(("ES", "GS", "LS", "person_score", "mhop_score", "KS"), TOKENS)

MEANING = {
    "ES": "efficacy: the edited prompts themselves",
    "GS": "generalization: rephrased prompts of the same facts",
    "LS": "specificity: unrelated prompts, scored against their own true answers",
    "person_score": "the edited facts asked by a persona",
    "mhop_score": "the edited facts asked through a second fact (two-hop questions)",
    "KS": "known facts: prompts that the unedited model should know and that no edit touches",
    "ES_all": "edited prompts with every answer token right",
    "GS_all": "rephrased prompts with every answer token right",
    "LS_all": "unrelated prompts with every answer token right",
    "person_score_all": "the edited facts asked by a persona, every answer token right",
    "mhop_score_all": "the edited facts asked through a second fact, every answer token right",
    "KS_all": "known facts with every answer token right",
    "LS_agreement": "share of the answer tokens of unrelated prompts whose first choice is what it was before editing",
    "LS_kl": "KL(before || after) of the next-token distribution on unrelated prompts, in nats, mean over answer "
    "positions; 0 is no change",
    "ES_exact": "edited prompts whose greedy answer equals the target after normalization",
    "GS_exact": "rephrased prompts whose greedy answer equals the target after normalization",
    "LS_exact": "unrelated prompts whose greedy answer equals the true one after normalization",
    "ES_contain": "edited prompts whose greedy answer contains the target after normalization",
    "GS_contain": "rephrased prompts whose greedy answer contains the target after normalization",
    "LS_contain": "unrelated prompts whose greedy answer contains the true one after normalization",
    "LS_same": "unrelated prompts whose greedy answer is letter by letter what it was before editing",
}
EXTRA = {
    TOKENS: "every answer token is predicted from the prompt and the true tokens before it; the share that "
    "is right, mean over the examples",
    "95 % interval": "Wilson score interval of the value over its n; where it is missing, none is defined",
    "immediate": "ES or GS of a batch right after its own write, before the next one",
    "retention": "ES of the edits of an earlier batch, measured after later batches were written",
    "f1_new": "downstream: mean of the classes' F1, weighted by how often a class is a label, of the likeliest choice",
}
