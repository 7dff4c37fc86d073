"""The shared utilities of *LLM Routing, Replicated*."""
