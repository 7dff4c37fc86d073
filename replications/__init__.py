"""The chapters: one folder a paper, each with its notebook, its parameters, its method and its ledger."""
