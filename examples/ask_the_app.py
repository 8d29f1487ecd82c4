"""Ask a running app what it serves, let a model of it write, and look at what surprised the model.

python app.py &
python examples/ask_the_app.py http://127.0.0.1:7860 "ROMEO:"
"""

import sys

from gradio_client import Client

address, prompt = sys.argv[1:]
page = Client(address, verbose=False)
models = page.predict(api_name="/models")
for model in models:
    print(f"{model['name']}: {model['cell']}, {model['parameters']:,} parameters, from {model['source']}")

name = models[0]["name"]
shown = ""
for text in page.submit(name, prompt, 200, 0.8, api_name="/generate"):  # the text so far, again and again
    print(text.removeprefix(shown), end="", flush=True)
    shown = text

print("\n\nwhat it was most surprised by in its own text:")
places = page.predict(name, prompt + shown, api_name="/inspect")
for place in sorted(places[1:], key=lambda place: -place["surprisal"])[:5]:
    expected = ", ".join(f"{each['symbol']!r} {each['probability']:.0%}" for each in place["likeliest"])
    print(f"{place['surprisal']:.2f} nats for {place['symbol']!r}, expected {expected}")
