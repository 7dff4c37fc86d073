"""RadialRouter (anonymous ACL submission): a radial Transformer that scores every LLM for a prompt."""
