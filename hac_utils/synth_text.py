"""Titles, tags and descriptions for the synthetic demo corpus, from a small grammar.

Words of neighbouring classes overlap on purpose ("guitar" is an instrument sample and a solo,
"car" a vehicle and a street), so text alone does not settle the class.
"""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator

#: class code -> things heard, kinds of sound, circumstances.
WORDS: dict[str, tuple[str, str, str]] = {
    "m-sp": (
        "drum loop,drum solo,beat,breakbeat,conga groove,djembe,percussion loop,tabla,"
        "drum kit,shaker loop,rhythm,cajon,fill,drums",
        "groovy,fast,tribal,funky,steady,140bpm,loopable,swinging",
        "rehearsal,drum circle,practice,studio",
    ),
    "m-si": (
        "guitar riff,piano melody,flute solo,bassline,violin phrase,arpeggio,"
        "harmonica tune,guitar,lullaby,kalimba,piano,synth lead,banjo,melody",
        "melodic,slow,sad,improvised,gentle,acoustic,live,loopable",
        "living room,practice,home studio,improvisation",
    ),
    "m-m": (
        "song,jam,band,groove,backing track,chord progression,orchestra,music loop,"
        "demo song,duet,theme,techno loop,soundtrack,ensemble",
        "upbeat,cinematic,funky,loopable,lofi,epic,full,melodic",
        "concert,studio,game music,rehearsal",
    ),
    "is-p": (
        "snare,kick,hi-hat,tom,cymbal,gong,wood block,clap,tambourine,triangle,conga,cowbell,rimshot,drum hit",
        "single,dry,one shot,punchy,layered,short,acoustic,hard hit",
        "sample pack,drum machine,anechoic,studio",
    ),
    "is-s": (
        "guitar,violin note,cello,bass string,harp pluck,ukulele,pizzicato,banjo,sitar,"
        "double bass,plucked string,open string,guitar chord,strum",
        "single note,forte,sustained,muted,mezzo,plucked,bowed,multisample",
        "sample library,studio,conservatory,one shot",
    ),
    "is-w": (
        "flute,trumpet,clarinet,saxophone,oboe,recorder,trombone,ocarina,tuba,whistle,bassoon,harmonica,horn,pan flute",
        "single note,sustained,breathy,forte,piano dynamic,overblown,long tone,multisample",
        "good sounds,conservatory,sample library,pitch",
    ),
    "is-k": (
        "piano,piano note,organ,harpsichord,rhodes,celesta,keyboard,clavinet,chord,"
        "toy piano,grand piano,harmonium,electric piano,accordion",
        "single note,soft,sustained,velocity,detuned,multisample,forte,warm",
        "sample library,studio,living room,one shot",
    ),
    "is-e": (
        "synth,synth bass,pad,lead,oscillator,wavetable,fm tone,stab,sub bass,"
        "pluck synth,modular,arpeggio,chord stab,saw wave",
        "single note,analog,detuned,filtered,fat,one shot,resonant,multisample",
        "sample pack,moog,plugin,patch",
    ),
    "sp-s": (
        "voice,man speaking,woman reading,speech,announcement,word,counting,narration,"
        "poem,sentence,hello,vocal,story,interview",
        "male,female,clear,english,spanish,spoken,whispered,dry",
        "voice over,microphone test,booth,room",
    ),
    "sp-c": (
        "crowd,conversation,chatter,people talking,audience,restaurant voices,discussion,"
        "walla,party,children playing,meeting,voices,murmur,cafe",
        "busy,distant,loud,ambient,indoor,noisy,multilingual,background",
        "bar,school,market,station",
    ),
    "sp-p": (
        "robot voice,vocoder,radio voice,text to speech,computer voice,alien voice,"
        "pitched vocal,voice,telephone voice,demon,glitch vocal,tts,announcement,cyborg",
        "processed,synthetic,distorted,robotic,male,female,filtered,creepy",
        "game,plugin,autotune,voice over",
    ),
    "fx-o": (
        "door,keys,glass,cup,drawer,paper,switch,zipper,coin,kettle,lock,bottle,plate,box",
        "opening,dropping,metallic,wooden,closing,rattling,short,scratching",
        "kitchen,foley,household,desk",
    ),
    "fx-v": (
        "car,motorcycle,truck,train,engine,airplane,bus,tram,helicopter,boat,scooter,tractor,car horn,drive by",
        "passing,starting,idling,accelerating,distant,diesel,interior,loud",
        "road,garage,highway,station",
    ),
    "fx-m": (
        "motor,drill,fan,washing machine,printer,generator,pump,clock,gears,"
        "vacuum cleaner,compressor,saw,engine,mechanism",
        "humming,mechanical,rattling,running,industrial,metallic,electric,steady",
        "workshop,factory,basement,field recording",
    ),
    "fx-h": (
        "footsteps,cough,breath,clap,laugh,sneeze,scream,snoring,chewing,sigh,heartbeat,kiss,applause,walking",
        "male,female,heavy,human,short,slow,running,wet",
        "foley,body,stairs,close mic",
    ),
    "fx-a": (
        "dog,bird,cat,crow,cow,frog,cricket,horse,bee,owl,bark,meow,growl,rooster",
        "chirping,barking,singing,angry,distant,wild,single,calling",
        "farm,zoo,garden,forest",
    ),
    "fx-n": (
        "rain,wind,thunder,waves,fire,stream,waterfall,explosion,water,storm,ice,hail,lava,river",
        "strong,dripping,rumbling,crackling,flowing,heavy,splashing,gusty",
        "beach,forest,field recording,mountain",
    ),
    "fx-ex": (
        "experiment,granular,noise,texture,feedback,glitch,drone,circuit bend,stretched,"
        "reversed sound,collage,scrape,resonance,abstract",
        "weird,processed,distorted,strange,manipulated,harsh,metallic,dark",
        "improvisation,max msp,contact mic,sound design",
    ),
    "fx-el": (
        "laser,beep,notification,ui click,zap,riser,whoosh,alarm,game sound,powerup,glitch,impact,sweep,error",
        "electronic,8-bit,sci-fi,digital,synthetic,short,futuristic,retro",
        "interface,game,sound design,plugin",
    ),
    "ss-n": (
        "forest,birds,birdsong,creek,meadow,jungle,beach,wind in trees,dawn chorus,"
        "night crickets,park,rain,swamp,field",
        "peaceful,ambient,distant,stereo,morning,summer,calm,natural",
        "field recording,ambience,national park,binaural",
    ),
    "ss-i": (
        "room tone,office,kitchen,hall,church,library,classroom,house,airport,basement,"
        "restaurant,museum,elevator,supermarket",
        "quiet,ambient,indoor,reverberant,background,humming,empty,interior",
        "field recording,ambience,roomtone,atmosphere",
    ),
    "ss-u": (
        "street,traffic,city,market,square,crossroads,station,playground,cars,construction,subway,crowd,tram,harbour",
        "busy,ambient,urban,distant,stereo,background,noisy,evening",
        "field recording,ambience,downtown,soundwalk",
    ),
    "ss-s": (
        "drone,pad,atmosphere,dark ambient,space,soundscape,texture,horror ambience,"
        "spaceship,dream,meditation,void,sci-fi ambience,hum",
        "eerie,deep,synthetic,slow,evolving,cinematic,ambient,dark",
        "sound design,game,film,background",
    ),
}

LEXICON = {code: tuple(field.split(",") for field in fields) for code, fields in WORDS.items()}

OFF_TOPIC = (
    "my first upload,untitled,test,zoom h4n,take 2,free,new,stuff,monday,final version,"
    "sound,audio,mix,H2n,random,unknown,for a friend,old tape,night session,demo,edit,"
    "mono,stereo,wav,recorded,sample,fx,sfx,background,2024,loop,noise"
).split(",")
PLACES = (
    "Barcelona,São Paulo,München,Kraków,Valparaíso,Québec,Lisboa,Zürich,Göteborg,Málaga,Tōkyō,Leeds,Oslo,Izmir"
).split(",")
GEAR = (
    "Zoom H4n,Tascam DR-40,Sony PCM-D50,Rode NT1,SM57,my phone,contact mics,Audacity,Reaper,Ableton,a MiniDisc recorder"
).split(",")
OPENINGS = (
    "Recording of,This is,A sample of,Sound of,Here is,Some,Just,You can hear,Part of a set:,Captured:,Another"
).split(",")
ENDINGS = (
    "Feel free to use it.",
    "Please credit me.",
    "Comments are welcome!",
    "No processing.",
    "Normalized and trimmed.",
    "Made for a school project.",
    "See my other sounds, too.",
    "Recorded at 48 kHz & 24 bit.",
    "Gracias — enjoy ♫",
    "<b>Licence:</b> see profile.",
    'More on <a href="https://example.org/pack">my page</a>.',
    "Thanks for listening.<br />",
)
STEMS = (
    "rec_{:04d}.wav",
    "STE-{:03d}.wav",
    "ZOOM{:04d}",
    "audio {:d}",
    "{:03d}_take.aif",
    "Track {:d}.wav",
    "untitled-{:d}.mp3",
    "MIX{:03d}",
)

#: Halves of uploader names.
NAME_A = "quiet,slow,blue,north,tape,echo,wild,little,noise,dust,salt,iron,paper,moon,field,copper".split(",")
NAME_B = "fox,wave,mic,garden,lab,river,owl,box,studio,walker,drum,bird,cat,hertz,house,stone".split(",")


def _pick(rng: Rng, options):
    return options[int(rng.integers(len(options)))]


def habits(rng: Rng) -> dict:
    """How one uploader writes: how often a title says anything, how many tags, which pet words."""
    return {
        "telling": float(rng.beta(3.0, 3.2)),
        "tags": float(rng.gamma(1.8, 1.05)),
        "describes": float(rng.beta(1.3, 1.3)),
        "sloppy": float(rng.beta(1.5, 3.0)),
        "pet": [_pick(rng, OFF_TOPIC + PLACES), _pick(rng, GEAR + OFF_TOPIC)],
        "stem": int(rng.integers(len(STEMS))),
        "case": int(rng.integers(4)),
        "thing": int(rng.integers(14)),
    }


def describe(rng: Rng, habit: dict, weights: dict[str, float], number: int) -> tuple[str, str, str]:
    """Title, comma-joined tags and description of one clip.

    Parameters
    ----------
    habit : dict
        Of the uploader, from :func:`habits`.
    weights : dict
        Class code -> how much of the clip it is; each word comes from a class drawn with these weights.
    number : int
        A running number for file-like titles.
    """
    codes, p = list(weights), np.array(list(weights.values()))

    def word(field: int) -> str:
        if rng.random() < 0.6 * habit["sloppy"]:
            return _pick(rng, OFF_TOPIC)
        words = LEXICON[codes[int(rng.choice(len(codes), p=p / p.sum()))]][field]
        if field == 0 and rng.random() < 0.45:  # people record the same things again
            return words[(habit["thing"] + int(rng.integers(2))) % len(words)]
        return _pick(rng, words)

    if rng.random() < habit["telling"]:
        title = word(0)
        if rng.random() < 0.5:
            title = f"{word(1)} {title}"
        if rng.random() < 0.25:
            title += f" {habit['pet'][0]}"
        if rng.random() < 0.4:
            title += f" {rng.integers(1, 30):02d}"
        shout = title.upper() if number % 3 == 0 else title.capitalize()
        title = (title, title.title(), title.replace(" ", "_") + ".wav", shout)[habit["case"]]
    elif rng.random() < 0.6:
        title = STEMS[habit["stem"]].format(int(number))
    else:
        title = f"{habit['pet'][0]} {_pick(rng, OFF_TOPIC)} {rng.integers(1, 99)}"

    tags = []
    for _ in range(min(int(rng.poisson(habit["tags"])), 14)):
        tags.append(word(int(rng.choice(3, p=[0.35, 0.35, 0.3]))).lower().replace(" ", "-"))
    if tags and rng.random() < 0.5:
        tags.append(habit["pet"][1].lower().replace(" ", "-"))
    tags = list(dict.fromkeys(tags))

    if rng.random() > habit["describes"]:
        return title, ",".join(tags), ""
    parts = [f"{_pick(rng, OPENINGS)} {word(1)} {word(0)}"]
    if rng.random() < 0.5:
        parts.append(f"and {word(0)}")
    if rng.random() < 0.5:
        parts.append(f"({word(2)}, {word(1)})")
    text = " ".join(parts) + "."
    if rng.random() < 0.4:
        text += f" Recorded with {_pick(rng, GEAR)} in {_pick(rng, PLACES)}."
    if rng.random() < 0.4:
        text += " " + _pick(rng, ENDINGS)
    if rng.random() < 0.06:
        text = f"<p>{text}</p>"
    return title, ",".join(tags), text
