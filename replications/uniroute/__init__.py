"""UniRoute (Jitkrittum et al., 2025): universal routing for pools of LLMs that change."""
