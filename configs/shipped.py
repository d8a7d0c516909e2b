r"""Trains the small model that comes with the project, `of.load(of.PRETRAINED)`.

    python -m oneflow_jax.main --config=configs/shipped.py
    python -m oneflow_jax.main --config=configs/shipped.py:text
    python -m oneflow_jax.main --mode=export --workdir=runs/shipped-text \
        --output=oneflow_jax/shipped

The images have 64 x 64 pixels and are encoded by the autoencoder that comes with the project, which
configs/codec.py:styles trained. After the first run, images are right and many texts are not. So
the second run continues with more texts to generate, at the times at which tokens are decided. The
third command exports the model. docs/shipped.md has the results.
"""

import ml_collections

from oneflow_jax.configs import common, quickstart
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys

FIRST_RUN = "runs/shipped"
"""Folder of the first run, from which the second run starts."""

CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")

NAMES = """
    tiger, lion, leopard, cat, dog, poodle, wolf, fox, raccoon, horse, unicorn, zebra, deer, moose,
    donkey, bison, cow, ox, pig, boar, ram, ewe, goat, camel, llama, giraffe, elephant, mammoth,
    rhinoceros, hippopotamus, mouse, rat, hamster, rabbit, chipmunk, beaver, hedgehog, bat, bear,
    polar bear, koala, panda, sloth, otter, skunk, kangaroo, badger, monkey, gorilla, orangutan,
    turkey, chicken, rooster, baby chick, bird, penguin, dove, eagle, duck, swan, owl, flamingo,
    peacock, parrot, goose, phoenix, frog, crocodile, turtle, lizard, snake, dragon, sauropod,
    t-rex, whale, dolphin, seal, fish, tropical fish, blowfish, shark, octopus, jellyfish, coral,
    crab, lobster, shrimp, squid, oyster, snail, butterfly, ant, honeybee, beetle, lady beetle,
    cricket, cockroach, spider, scorpion, mosquito, fly, worm, spiral shell, feather, paw prints,
    bouquet, cherry blossom, lotus, rose, hibiscus, sunflower, tulip, hyacinth, seedling,
    potted plant, evergreen tree, deciduous tree, palm tree, cactus, herb, shamrock,
    four leaf clover, maple leaf, mushroom,
    grapes, melon, watermelon, tangerine, lemon, lime, banana, pineapple, mango, red apple,
    green apple, pear, peach, cherries, strawberry, blueberries, kiwi fruit, tomato, olive, coconut,
    avocado, eggplant, potato, carrot, ear of corn, hot pepper, bell pepper, cucumber, leafy green,
    broccoli, garlic, onion, peanuts, chestnut, bread, croissant, baguette bread, pretzel, bagel,
    pancakes, waffle, cheese wedge, meat on bone, poultry leg, bacon, hamburger, french fries,
    pizza, hot dog, sandwich, taco, burrito, egg, cooking, popcorn, butter, spaghetti, sushi,
    rice ball, dumpling, fortune cookie, ice cream, soft ice cream, doughnut, cookie, birthday cake,
    shortcake, cupcake, pie, chocolate bar, candy, lollipop, custard, honey pot, baby bottle,
    hot beverage, teapot, wine glass, cocktail glass, beer mug, bubble tea,
    volcano, camping, desert island, house, castle, factory, hospital, church, mosque, tent,
    statue of liberty, tokyo tower, ferris wheel, roller coaster, locomotive, train, tram, bus,
    ambulance, fire engine, police car, taxi, automobile, pickup truck, tractor, racing car,
    motorcycle, motor scooter, bicycle, kick scooter, skateboard, anchor, sailboat, canoe,
    speedboat, ship, airplane, helicopter, satellite, rocket, flying saucer, luggage, watch,
    alarm clock, crescent moon, sun, star, cloud, rainbow, umbrella, snowflake, snowman, fire,
    droplet, tornado, compass,
    glasses, sunglasses, t-shirt, jeans, scarf, gloves, coat, socks, dress, bikini, purse, backpack,
    running shoe, high-heeled shoe, crown, top hat, graduation cap, lipstick, ring, gem stone, bell,
    microphone, headphone, radio, saxophone, accordion, guitar, trumpet, violin, banjo, drum,
    maracas, flute, telephone, battery, laptop, printer, camera, television, candle, light bulb,
    open book, envelope, package, pencil, paintbrush, scissors, key, hammer, axe, wrench,
    screwdriver, magnet, ladder, microscope, telescope, door, bed, chair, toilet, bathtub, broom,
    bucket, sponge, shopping cart, moai,
    jack-o-lantern, christmas tree, balloon, wrapped gift, trophy, soccer ball, basketball, kite,
    teddy bear, yo-yo, game die, puzzle piece
"""
"""Names of emoji that people are likely to ask for and whose drawings are distinct."""


def get_config(kind: str = "all") -> ml_collections.ConfigDict:
    """Return the configuration of the first run, "all" tasks, or of the second, "text".

    Raises:
        UserError: there is no such run.
    """
    if kind not in ("all", "text"):
        raise UserError(f"configs/shipped.py:{kind}: unknown run. Use all or text.")
    config = quickstart.get_config("oneflow")
    config.name = "shipped"
    config.steps = 5_500

    config.codec = common.latent_codec(path_keys.SHIPPED_CODEC, pixels=64, patch=4)
    config.codec.divisor = 2.0
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.concepts = None
    config.source.names = tuple(name.strip() for name in NAMES.split(","))
    config.source.categories = CATEGORIES
    config.source.documents = 40_000
    config.source.interleaved = 0.35
    config.data.sequence_length = 128
    config.data.overflow = "drop"  # some documents of held-out names, which are long, do not fit
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 1_280

    config.paradigm.tasks.joint = 0.25
    config.paradigm.tasks.own_slot_times = 0.25
    config.paradigm.tasks.text_first = 0.0
    config.paradigm.tasks.text_to_image = 0.2
    config.paradigm.tasks.image_to_text = 0.2

    config.checkpoint.every = 500
    config.evaluation.every = 2_000
    config.evaluation.num_samples = 300
    config.evaluation.nfe = (4, 8, 16)
    config.sampling.confidence_threshold = 0.9
    config.sampling.prompts = (
        "first a fox <image>, then <text> <image>",
        "<text> <image>",
        "a picture of a tiger: <image>",
        "<text> <image> and <text> <image>",
    )
    return _continue_with_text(config) if kind == "text" else config


def _continue_with_text(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return the configuration of the second run, which starts from the first one."""
    config.name = "shipped-text"
    config.init_from = FIRST_RUN
    config.steps = 3_500
    config.optimizer.learning_rate = 8e-3
    config.paradigm.tasks.text_to_image = 0.1
    config.paradigm.tasks.image_to_text = 0.3
    config.paradigm.text_time_sampler = ("information", 4.97, 1.22, 0.75, 1.5)
    return config
