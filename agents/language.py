"""Which language a short customer message is written in."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

# How much the thread's language so far counts, in log-odds.
THREAD_BONUS = 1.5

# Statistical models fail on single greetings ("hallo" -> en, "merci" -> it), so the common ones are listed.
GREETINGS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "hello hi hey hiya thanks thx thank cheers please yes yeah yep no nope ok okay bye goodbye "
        "morning help",
        "de": "hallo hallöchen servus moin grüezi gruezi hoi tach danke dankeschön bitte ja jo nein nö "
        "tschüss tschüß tschau baba pfiat super passt genau hilfe",
        "fr": "bonjour bonsoir salut coucou merci oui non au-revoir svp aide",
        "it": "ciao buongiorno buonasera salve grazie sì si prego arrivederci aiuto",
        "es": "hola buenas gracias sí si adiós adios ayuda vale",
        "nl": "hallo hoi dag goedemorgen goedemiddag dankjewel bedankt ja nee doei",
        "pt": "olá ola obrigado obrigada sim não tchau",
        "pl": "cześć czesc dzień dobry dziękuję dzieki tak nie",
        "tr": "merhaba selam teşekkürler tesekkurler evet hayır",
        "hr": "bok zdravo hvala da ne dobar",
        "sl": "živjo zdravo hvala ja ne",
        "hu": "szia sziasztok helló köszönöm igen nem",
        "cs": "ahoj děkuji díky ano ne",
    }.items()
}


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    # raw log-probabilities: normalised over all 97 languages, the tenant's few may all be rounded to nought
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=False)


class LanguageGuesser:
    """Guesses among the tenant's languages only; the first one made in a process loads the model, about 1 s.

    Args:
        languages: BCP 47 primary subtags, the tenant's own language first.

    Raises:
        ValueError: there are no languages, or the model does not know one of them.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        unknown = sorted(set(languages) - set(_identifier().nb_classes))
        if not languages or unknown:
            raise ValueError(
                f"languages the identifier does not know: {unknown}" if unknown else "no languages"
            )
        self._languages = tuple(dict.fromkeys(languages))

    def guess(self, text: str, thread: str | None = None) -> tuple[str, float]:
        """The likeliest language and its probability, 0 to 1.

        Args:
            text: a message; placeholders in it tell nothing.
            thread: the language of the thread so far. It decides where the text tells nothing.
        """
        home = thread if thread in self._languages else self._languages[0]
        words = _words(text)
        if not words:
            return home, 1 / len(self._languages)
        if len(words) == 1:
            hits = [language for language in self._languages if words[0] in GREETINGS.get(language, ())]
            if hits:
                return (home if home in hits else hits[0]), 1.0
        raw = dict(_identifier().rank(" ".join(words)))
        scores = {
            language: float(raw[language]) + (THREAD_BONUS if language == thread else 0.0)
            for language in self._languages
        }
        best = max(scores, key=lambda language: scores[language])
        total = np.sum([math.exp(score - scores[best]) for score in scores.values()])
        return best, float(1 / total)


def _words(text: str) -> list[str]:
    return [
        stripped
        for word in text.split()
        if "⟦" not in word and any(char.isalpha() for char in word)
        and (stripped := word.strip(" !.,?;:\"'()„“").casefold())
    ]  # fmt: skip
