//! A reader of pickles that executes nothing: it understands what checkpoints are made of.
//!
//! Instructions are those that Python's protocols 2 to 5 use for numbers, text and containers;
//! of the names a pickle may refer to, only those in [`GLOBALS`] are known, and they stand for
//! tensors, storages and dictionaries here, never for code. Anything else is refused by name.
//! Values live in an arena and refer to each other by number, so neither cycles nor deep nesting
//! cost more than their bytes.
//!
//! Sources: Python's `pickletools.py` (the instructions), `PyTorch`'s `torch/_utils.py` and
//! `torch/serialization.py` (the names).

mod machine;

pub(super) use self::machine::read;

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
    F64,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// Bytes of one element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A name that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    Size,
    Storage(Element),
}

/// Every name that a pickle may refer to.
const GLOBALS: [(&str, &str, Global); 14] = [
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch", "Size", Global::Size),
    ("torch", "FloatStorage", Global::Storage(Element::F32)),
    ("torch", "HalfStorage", Global::Storage(Element::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Element::Bf16)),
    ("torch", "DoubleStorage", Global::Storage(Element::F64)),
    ("torch", "LongStorage", Global::Storage(Element::I64)),
    ("torch", "IntStorage", Global::Storage(Element::I32)),
    ("torch", "ShortStorage", Global::Storage(Element::I16)),
    ("torch", "CharStorage", Global::Storage(Element::I8)),
    ("torch", "ByteStorage", Global::Storage(Element::U8)),
    ("torch", "BoolStorage", Global::Storage(Element::Bool)),
];

/// A value, as far as checkpoints need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// `None`, booleans, floats, bytes and large integers, none of which tells about tensors.
    Other,
    Int(i64),
    Text(&'a str),
    Global(Global),
    /// Into the arena.
    Node(usize),
}

/// A value that holds others.
#[derive(Debug)]
pub(super) enum Node<'a> {
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(Tensor<'a>),
}

/// A run of elements in an entry of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub(super) element: Element,
    pub(super) key: &'a str,
    pub(super) len: usize,
}

/// A view on a storage; offset and strides in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// What a pickle described.
#[derive(Debug)]
pub(super) struct Unpickled<'a> {
    nodes: Vec<Node<'a>>,
    /// The value it stands for.
    pub(super) root: Value<'a>,
    /// Bytes it takes.
    pub(super) len: usize,
}

impl<'a> Unpickled<'a> {
    /// Everything that holds something.
    pub(super) fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// What `value` holds, where it holds something.
    pub(super) fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(at) => self.nodes.get(at),
            _ => None,
        }
    }
}
