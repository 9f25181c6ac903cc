"""In what order: the LangGraph state machine, its state, its runner and its checkpoints."""
