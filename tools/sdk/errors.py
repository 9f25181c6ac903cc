"""What a tool may say to the model, and what stops the start."""


class ToolError(Exception):
    """The call cannot be carried out; the message is a sentence on which the model can act. Anything else
    that is raised ends the turn.
    """


class PluginError(Exception):
    """A plug-in is not fit to be loaded: the text says which file and why. The process does not start."""
