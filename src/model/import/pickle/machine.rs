//! The stack machine behind a pickle.

use std::collections::HashMap;

use super::{GLOBALS, Global, Node, Storage, Tensor, Unpickled, Value};

/// Reads the pickle at the beginning of `bytes`.
///
/// # Errors
///
/// A sentence that says which name is refused or where the pickle is broken.
pub(in super::super) fn read(bytes: &[u8]) -> Result<Unpickled<'_>, String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    loop {
        let at = machine.at;
        let code = machine.u8()?;
        let step = machine.step(code);
        match step.map_err(|what| format!("its pickle is broken at byte {at}: {what}"))? {
            Step::Go => {}
            Step::Stop(root) => {
                return Ok(Unpickled { nodes: machine.nodes, root, len: machine.at });
            }
        }
    }
}

/// What follows an instruction.
enum Step<'a> {
    Go,
    Stop(Value<'a>),
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    nodes: Vec<Node<'a>>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Result<Step<'a>, String> {
        match code {
            0x80 => _ = self.u8()?,    // PROTO
            0x95 => _ = self.take(8)?, // FRAME
            b'.' => return self.pop().map(Step::Stop),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,      // POP
            b'1' => _ = self.pop_mark()?, // POP_MARK
            b'2' => self.stack.push(*self.stack.last().ok_or(EMPTY)?),
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b'K' => {
                let n = self.u8()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = self.number::<2>().map(u16::from_le_bytes)?;
                self.stack.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = self.number::<4>().map(i32::from_le_bytes)?;
                self.stack.push(Value::Int(n.into()));
            }
            b'G' => self.skip(8)?, // BINFLOAT
            0x8a => self.long()?,
            b'X' | 0x8c | 0x8d => self.text(code)?,
            b'B' | b'C' | 0x8e => self.skip_bytes(code)?,
            b'q' | b'r' | 0x94 => {
                let index = match code {
                    b'q' => self.u8()?.into(),
                    b'r' => self.u32()?,
                    _ => self.memo.len() as u32,
                };
                let top = *self.stack.last().ok_or(EMPTY)?;
                self.memo.insert(index, top);
            }
            b'h' | b'j' => {
                let index = if code == b'h' { self.u8()?.into() } else { self.u32()? };
                let value = self.memo.get(&index).ok_or("it refers to what was not kept")?;
                self.stack.push(*value);
            }
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' | b'l' | b'd' => self.collect(code)?,
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code - 0x84)).ok_or(EMPTY)?;
                let items = self.stack.split_off(self.above_mark(start)?);
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a name is not text".to_owned());
                };
                self.global(module, name)?;
            }
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Err(format!("weights never need its instruction {code:#04x}")),
        }
        Ok(Step::Go)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("its pickle is cut short")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?.first_chunk().copied();
        bytes.ok_or_else(|| "its pickle is cut short".to_owned())
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.number().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64_len(&mut self) -> Result<usize, String> {
        let len = self.number().map(u64::from_le_bytes)?;
        usize::try_from(len).map_err(|_| "it is cut short".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().take(256).position(|&b| b == b'\n').ok_or("a name has no end")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn skip(&mut self, len: usize) -> Result<(), String> {
        self.take(len)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn skip_bytes(&mut self, code: u8) -> Result<(), String> {
        let len = match code {
            b'C' => self.u8()?.into(),
            b'B' => self.u32()? as usize,
            _ => self.u64_len()?,
        };
        self.skip(len)
    }

    fn text(&mut self, code: u8) -> Result<(), String> {
        let len = match code {
            0x8c => self.u8()?.into(),
            b'X' => self.u32()? as usize,
            _ => self.u64_len()?,
        };
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| "text is not UTF-8")?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// An integer of any length, of which only those that fit are of use.
    fn long(&mut self) -> Result<(), String> {
        let len = self.u8()?.into();
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let value = if bytes.len() <= 8 {
            wide[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Other
        };
        self.stack.push(value);
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(Value::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    /// `height`, unless a mark stands above it.
    fn above_mark(&self, height: usize) -> Result<usize, String> {
        let mark = self.marks.last().copied().unwrap_or(0);
        if height < mark { Err(EMPTY.to_owned()) } else { Ok(height) }
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.above_mark(self.stack.len().checked_sub(1).ok_or(EMPTY)?)?;
        self.stack.pop().ok_or_else(|| EMPTY.to_owned())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("there is no open mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn collect(&mut self, code: u8) -> Result<(), String> {
        let items = self.pop_mark()?;
        match code {
            b't' => self.push(Node::Tuple(items)),
            b'l' => self.push(Node::List(items)),
            _ => {
                self.push(Node::Dict(Vec::new()));
                self.set(&items)?;
            }
        }
        Ok(())
    }

    /// What the value on top of the stack holds.
    fn top(&mut self) -> Result<&mut Node<'a>, String> {
        match self.stack.last() {
            Some(&Value::Node(at)) => Ok(&mut self.nodes[at]),
            _ => Err("there is no container to fill".to_owned()),
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        match self.top()? {
            Node::List(list) => list.extend(items),
            _ => return Err("only lists can be appended to".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a key has no value".to_owned());
        };
        match self.top()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err("only dictionaries have keys".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        let (_, _, global) = known.ok_or_else(|| {
            format!("it asks for `{module}.{name}`, which weights never need: refused")
        })?;
        self.stack.push(Value::Global(*global));
        Ok(())
    }

    fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(at) => self.nodes.get(at),
            _ => None,
        }
    }

    fn tuple(&self, value: Value<'a>) -> Result<&[Value<'a>], String> {
        match self.node(value) {
            Some(Node::Tuple(items)) => Ok(items),
            _ => Err("a tuple is expected".to_owned()),
        }
    }

    /// `("storage", type, key, place, length)`, in old files with one item more.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match self.tuple(id)? {
            &[
                Value::Text("storage"),
                Value::Global(Global::Storage(element)),
                Value::Text(key),
                _,
                Value::Int(len),
                ..,
            ] => usize::try_from(len).ok().map(|len| Storage { element, key, len }),
            _ => None,
        };
        let storage = storage.ok_or("a storage is not described as it should be")?;
        self.push(Node::Storage(storage));
        Ok(())
    }

    /// Stands in for the call of a known name.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let arguments = self.tuple(arguments)?;
        let made = match (function, arguments) {
            (Value::Global(Global::OrderedDict), []) => Node::Dict(Vec::new()),
            (Value::Global(Global::Size), &[size]) => Node::Tuple(self.tuple(size)?.to_vec()),
            (Value::Global(Global::RebuildTensor), &[storage, offset, shape, strides, ..]) => {
                Node::Tensor(self.tensor(storage, offset, shape, strides)?)
            }
            (Value::Global(Global::RebuildParameter), &[tensor, ..]) => {
                self.stack.push(tensor);
                return Ok(());
            }
            _ => return Err("it calls something in a way that weights never need".to_owned()),
        };
        self.push(made);
        Ok(())
    }

    fn tensor(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Result<Tensor<'a>, String> {
        let Some(&Node::Storage(storage)) = self.node(storage) else {
            return Err("a tensor has no storage".to_owned());
        };
        let size = |value: &Value<'a>| match value {
            Value::Int(n) => usize::try_from(*n).map_err(|_| "a tensor has a negative size"),
            _ => Err("a tensor has a size that is no number"),
        };
        let (shape, strides) = (self.tuple(shape)?, self.tuple(strides)?);
        if shape.len() != strides.len() {
            return Err("a tensor has more sizes than strides, or fewer".to_owned());
        }
        Ok(Tensor {
            storage,
            offset: size(&offset)?,
            shape: shape.iter().map(size).collect::<Result<_, _>>()?,
            strides: strides.iter().map(size).collect::<Result<_, _>>()?,
        })
    }

    /// Attributes of a dictionary (`_metadata` of a state dict) tell nothing about tensors.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.top()? {
            Node::Dict(_) => Ok(()),
            _ => Err("only dictionaries may have attributes".to_owned()),
        }
    }
}

const EMPTY: &str = "it takes more values than there are";
