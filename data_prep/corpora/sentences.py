"""What the speakers of the synthetic corpus say: written for it, rich in lip shapes."""

ENGLISH = (
    "My mother bought five fresh apples for the baker.",
    "Who put the yellow boat behind the open window?",
    "Please bring both of the blue bowls over by noon.",
    "We saw a farmer move four heavy boxes of beef.",
    "Why would you throw the warm bread at a pigeon?",
    "The old piano player hummed a famous waltz.",
    "Bob and Pam will meet at the pub before supper.",
    "A fox jumped over the muddy fence at five.",
    "She sells cheese, shoes and very small chairs.",
    "My father knows how to mow the whole meadow.",
    "You should choose a room with a view of the moon.",
    "Voices of seven women echoed from above the valley.",
    "Peter packed a parcel of pepper for the voyage.",
    "Good books make poor pillows, but fine company.",
    "How now, where have all the brown cows gone?",
    "Vivid maps show the way from Bombay to Vancouver.",
    "Move the table away from the fireplace, please.",
    "A wise woman once wove wool by the water wheel.",
    "Four times two is eight, and five more is thirteen.",
    "Thank you for the bath, the path and the map.",
    "Just above the harbour, a white bird was flying home.",
    "The judge chose a huge orange from the fridge.",
    "Maybe Emma and Tom could swim across the bay.",
    "Open your mouth wide and say all of the vowels.",
    "Beautiful music moves people to mumble along.",
    "Five brave men worked above the boiling lava.",
    "I am happy to help you carry the heavy bags.",
    "Do you believe that bees prefer purple flowers?",
    "Shall we wash the shaggy sheep before showtime?",
    "The moon rose slowly over the empty playground.",
    "Pull up the rope before the storm blows over.",
    "Father Abbot baked a marvellous plum pudding.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "Every evening we walk by the river for an hour.",
    "Papa may buy me a pony and a puppy on Monday.",
    "They thought the weather would be rather foggy.",
    "Wait, what would you want with a wet violin?",
    "Small beams of amber light fell upon the floor.",
    "The vet gave the lively beaver a warm blanket.",
    "Both of my boots are full of rain and mud.",
    "Whoever moved my coffee must have been very brave.",
    "A map of Europe hung above my aunt's bookshelf.",
    "Show me the shop where you found the fur hat.",
    "Nobody bothers to polish the brass lamps by hand.",
    "We voted for a bigger pool and a better park.",
    "The bumpy bus ride made the babies laugh.",
    "Few people ever phone before half past four.",
    "Oh my, what a wonderful way to whip cream!",
)

SPANISH = (
    "Mi abuela compró cinco manzanas para el postre.",
    "Por favor, abre la puerta y pon la mesa.",
    "El viento movía las hojas amarillas del bosque.",
    "Todos los sábados vamos a pasear por el puerto.",
)

GERMAN = (
    "Meine Mutter backt am Abend frisches Brot.",
    "Wir wollen morgen früh über die Brücke gehen.",
    "Bitte bringen Sie fünf blaue Becher mit.",
    "Am Bahnhof wartet ein Mann mit einem braunen Hut.",
)

FRENCH = (
    "Ma voisine a vu un beau bateau bleu sur la mer.",
    "Pouvez-vous fermer la porte avant de partir ?",
    "Le boulanger vend du bon pain tous les matins.",
    "Nous avons bu du vin blanc avec des amis.",
)

BY_LANGUAGE = {"en": ENGLISH, "es": SPANISH, "de": GERMAN, "fr": FRENCH}


def sentences(voice_name: str) -> tuple[str, ...]:
    """The sentences in the language of an espeak-ng voice such as ``en-us+f2``."""
    return BY_LANGUAGE[voice_name.split("+")[0].split("-")[0]]
