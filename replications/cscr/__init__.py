"""CSCR (Cost-Aware Contrastive Routing for LLMs): prompts and LLMs in one space, the nearest few compared by cost."""
