//! What there is in a scene, with the word for each.

/// A closed list of words as an enum: every variant with its word, in order.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = concat!("\"", $word, "\"")] $variant,)+
        }

        impl $name {
            /// Every one, in the order of `as usize`.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its word, in lower case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// What a thing is.
    Kind {
        Cat = "cat",
        Dog = "dog",
        Rabbit = "rabbit",
        Horse = "horse",
        Fish = "fish",
        Bird = "bird",
        Duck = "duck",
        Butterfly = "butterfly",
        Person = "person",
        Runner = "runner",
        Dancer = "dancer",
        Car = "car",
        Bus = "bus",
        Truck = "truck",
        Bicycle = "bicycle",
        Train = "train",
        Boat = "boat",
        Plane = "plane",
        Rocket = "rocket",
        Balloon = "balloon",
        Kite = "kite",
        Tree = "tree",
        Pine = "pine",
        Flower = "flower",
        Cactus = "cactus",
        Mushroom = "mushroom",
        Apple = "apple",
        Banana = "banana",
        Pear = "pear",
        Sun = "sun",
        Moon = "moon",
        Star = "star",
        Heart = "heart",
        Ball = "ball",
        House = "house",
        Tower = "tower",
        Cup = "cup",
        Bottle = "bottle",
        Umbrella = "umbrella",
        Chair = "chair",
        Table = "table",
        Lamp = "lamp",
        Clock = "clock",
        Book = "book",
        Key = "key",
        Hat = "hat",
        Crown = "crown",
        Guitar = "guitar",
    }
}

impl Kind {
    /// The word for several of it, in lower case.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Cat => "cats",
            Self::Dog => "dogs",
            Self::Rabbit => "rabbits",
            Self::Horse => "horses",
            Self::Fish => "fish",
            Self::Bird => "birds",
            Self::Duck => "ducks",
            Self::Butterfly => "butterflies",
            Self::Person => "people",
            Self::Runner => "runners",
            Self::Dancer => "dancers",
            Self::Car => "cars",
            Self::Bus => "buses",
            Self::Truck => "trucks",
            Self::Bicycle => "bicycles",
            Self::Train => "trains",
            Self::Boat => "boats",
            Self::Plane => "planes",
            Self::Rocket => "rockets",
            Self::Balloon => "balloons",
            Self::Kite => "kites",
            Self::Tree => "trees",
            Self::Pine => "pines",
            Self::Flower => "flowers",
            Self::Cactus => "cactuses",
            Self::Mushroom => "mushrooms",
            Self::Apple => "apples",
            Self::Banana => "bananas",
            Self::Pear => "pears",
            Self::Sun => "suns",
            Self::Moon => "moons",
            Self::Star => "stars",
            Self::Heart => "hearts",
            Self::Ball => "balls",
            Self::House => "houses",
            Self::Tower => "towers",
            Self::Cup => "cups",
            Self::Bottle => "bottles",
            Self::Umbrella => "umbrellas",
            Self::Chair => "chairs",
            Self::Table => "tables",
            Self::Lamp => "lamps",
            Self::Clock => "clocks",
            Self::Book => "books",
            Self::Key => "keys",
            Self::Hat => "hats",
            Self::Crown => "crowns",
            Self::Guitar => "guitars",
        }
    }
}

words! {
    /// The main colour of a thing.
    Colour {
        Red = "red",
        Orange = "orange",
        Yellow = "yellow",
        Green = "green",
        Blue = "blue",
        Purple = "purple",
        Pink = "pink",
        Brown = "brown",
        Black = "black",
        White = "white",
        Gray = "gray",
    }
}

words! {
    /// Where a scene is.
    Setting {
        Beach = "beach",
        Snow = "snow",
        NightSky = "night sky",
        Sea = "sea",
        Forest = "forest",
        City = "city",
        Desert = "desert",
        Field = "field",
        Room = "room",
        Kitchen = "kitchen",
        Road = "road",
        Mountain = "mountain",
    }
}

impl Setting {
    /// Whether it has a roof: no weather and no time of day is seen there.
    pub const fn is_inside(self) -> bool {
        matches!(self, Self::Room | Self::Kitchen)
    }
}

words! {
    /// The light of a scene.
    TimeOfDay {
        Day = "day",
        Sunset = "sunset",
        Night = "night",
    }
}

words! {
    /// What falls or hangs in the air.
    Weather {
        Clear = "clear",
        Rain = "rain",
        Snowfall = "snowfall",
        Fog = "fog",
    }
}

words! {
    /// How big a thing is, where that is clear.
    Size {
        Small = "small",
        Large = "large",
    }
}

words! {
    /// The hand that drew a scene. [`Style::HELD_OUT`] is never trained on.
    Style {
        Flat = "flat",
        Outlined = "outlined",
        Shaded = "shaded",
        Hatched = "hatched",
        Crayon = "crayon",
        Poster = "poster",
        Watercolour = "watercolour",
        Paper = "paper",
    }
}

impl Style {
    /// The style that no training scene has: cut out of paper, with a white rim and a shadow.
    pub const HELD_OUT: Self = Self::Paper;
}
