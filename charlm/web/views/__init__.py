"""The views of the page: the Gradio components of each, and which answer is called at which event."""
