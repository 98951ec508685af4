"""The project's evidence: the runs behind the paper's claims, what they show, and the page that says so."""
