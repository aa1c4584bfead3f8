//! Visual tokens of the pictures, computed once and kept in a file beside the result.
//!
//! The vision part is frozen, so a picture gives the same tokens in every step. They lie in one
//! file of records of one size:
//!
//! | bytes | what |
//! |---|---|
//! | 24 | [`MAGIC`] |
//! | 32 | blake3 of the model's fingerprint and the type of its activations |
//! | 4, 4 | rows and width of a picture's tokens, little-endian |
//! | 32 | key of a picture: blake3 of its path, size and time |
//! | 2 rows width | its tokens in f16 |
//! | 8 | first bytes of the blake3 of the two |
//!
//! Training always reads them from there, so it sees the same bits whether they were computed now
//! or by an earlier run. The file may end in half a record after a kill; that one is dropped.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, TryLockError},
    io::{BufReader, Read, Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::{DType, Device, Module, Tensor};
use half::f16;
use rayon::prelude::*;

use super::{FineTuneError, Result, Watch};
use crate::{
    decode::{DecodedImage, decode_file},
    model::{
        bundle::Bundle, device::compute_dtype, eva_vit::EvaVit, pixels::pixel_values,
        qformer::QFormer,
    },
    train::TrainError,
};

/// Begins the file; the last character is its version.
const MAGIC: &[u8; 24] = b"tinyfind visual tokens 1";
/// Bytes before the first record.
const HEADER: usize = 64;
/// Bytes of a key.
const KEY: usize = 32;
/// Bytes of a checksum.
const CHECK: usize = 8;

type Key = [u8; KEY];

/// The file of visual tokens of one model.
#[derive(Debug)]
pub(super) struct TokenCache {
    file: File,
    path: PathBuf,
    rows: usize,
    width: usize,
    /// Number of the record of each picture.
    slots: HashMap<Key, u64>,
    records: u64,
}

impl TokenCache {
    /// Opens `path` for tokens `(rows, width)` of the model that `model` identifies; begins it
    /// anew where it is missing or of another model.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, is something else, or another run uses it.
    pub(super) fn open(path: &Path, model: &str, rows: usize, width: usize) -> Result<Self> {
        let io = |source| io_error(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FineTuneError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(blake3::hash(model.as_bytes()).as_bytes());
        header.extend_from_slice(&(rows as u32).to_le_bytes());
        header.extend_from_slice(&(width as u32).to_le_bytes());
        let mut cache =
            Self { file, path: path.to_owned(), rows, width, slots: HashMap::new(), records: 0 };
        cache.scan(&header)?;
        Ok(cache)
    }

    /// Reads the keys of all whole records; drops what follows them.
    fn scan(&mut self, header: &[u8]) -> Result<()> {
        let path = self.path.clone();
        let io = |source| io_error(&path, source);
        let length = self.file.metadata().map_err(io)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut found = vec![0; HEADER];
        let whole = length >= HEADER as u64;
        if whole {
            reader.read_exact(&mut found).map_err(io)?;
        } else {
            found.truncate(length as usize);
            reader.read_exact(&mut found).map_err(io)?;
        }
        if !MAGIC.starts_with(&found[..found.len().min(MAGIC.len())]) {
            return Err(FineTuneError::NotTokens { path });
        }
        if found != header {
            self.file.set_len(0).map_err(io)?;
            self.file.write_all_at(header, 0).map_err(io)?;
            return Ok(());
        }
        let mut record = vec![0; self.record()];
        let records = (length - HEADER as u64) / self.record() as u64;
        for at in 0..records {
            reader.read_exact(&mut record).map_err(io)?;
            let Some(key) = checked(&record) else { break };
            self.slots.insert(key, at);
            self.records = at + 1;
        }
        self.file.set_len(self.end()).map_err(io)
    }

    /// Bytes of a record.
    fn record(&self) -> usize {
        KEY + 2 * self.rows * self.width + CHECK
    }

    /// Where the next record begins.
    fn end(&self) -> u64 {
        HEADER as u64 + self.records * self.record() as u64
    }

    /// Adds the tokens of pictures and brings them to the disk.
    fn append(&mut self, tokens: &[(Key, Vec<f32>)]) -> Result<()> {
        let mut bytes = Vec::with_capacity(tokens.len() * self.record());
        for (key, values) in tokens {
            let from = bytes.len();
            bytes.extend_from_slice(key);
            bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
            let check = blake3::hash(&bytes[from..]);
            bytes.extend_from_slice(&check.as_bytes()[..CHECK]);
        }
        let end = self.end();
        let written = self.file.seek(SeekFrom::Start(end)).and_then(|_| {
            self.file.write_all(&bytes)?;
            self.file.sync_data()
        });
        written.map_err(|source| io_error(&self.path, source))?;
        for (key, _) in tokens {
            self.slots.insert(*key, self.records);
            self.records += 1;
        }
        Ok(())
    }

    /// The tokens of pictures by the numbers of their records: `(slots, rows, width)`, f32.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or changed meanwhile.
    pub(super) fn tokens(
        &self,
        slots: &[u64],
        device: &Device,
    ) -> std::result::Result<Tensor, TrainError> {
        let io = |source| TrainError::Io { path: self.path.clone(), source };
        let mut values = Vec::with_capacity(slots.len() * self.rows * self.width);
        let mut record = vec![0; self.record()];
        for slot in slots {
            let at = HEADER as u64 + slot * self.record() as u64;
            self.file.read_exact_at(&mut record, at).map_err(io)?;
            if checked(&record).is_none() {
                return Err(io(std::io::Error::other("visual tokens changed while in use")));
            }
            let halves = record[KEY..record.len() - CHECK].as_chunks::<2>().0;
            values.extend(halves.iter().map(|&half| f16::from_le_bytes(half).to_f32()));
        }
        let shape = (slots.len(), self.rows, self.width);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?)
    }
}

/// The key of a record, if its checksum is right.
fn checked(record: &[u8]) -> Option<Key> {
    let (data, check) = record.split_last_chunk::<CHECK>()?;
    let right = blake3::hash(data).as_bytes().starts_with(check);
    if right { data.first_chunk().copied() } else { None }
}

fn io_error(path: &Path, source: std::io::Error) -> FineTuneError {
    TrainError::Io { path: path.to_owned(), source }.into()
}

/// What a picture is known by: another path, size or time is another picture.
fn key(path: &Path) -> std::io::Result<Key> {
    let path = path.canonicalize()?;
    let about = path.metadata()?;
    let time = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&about.len().to_le_bytes());
    hasher.update(&time.as_nanos().to_le_bytes());
    hasher.update(path.as_os_str().as_bytes());
    Ok(*hasher.finalize().as_bytes())
}

/// What became of pictures.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Number of the record of each picture; `None` where there is none.
    pub(super) slots: Vec<Option<u64>>,
    /// Pictures that cannot be read, by their places in the list, with the reason.
    pub(super) failed: Vec<(usize, String)>,
    /// Whether it was stopped before the end.
    pub(super) stopped: bool,
}

/// ViT and captioning Q-Former.
struct Eyes {
    vit: EvaVit,
    qformer: QFormer,
    size: usize,
    device: Device,
    dtype: DType,
}

impl Eyes {
    fn open(bundle: &Bundle, device: &Device) -> Result<Self> {
        let missing = |part| FineTuneError::NoPart { model: bundle.name().to_owned(), part };
        let vision = bundle.config().vision.as_ref().ok_or_else(|| missing("vision"))?;
        let captioner = bundle.config().captioner.as_ref().ok_or_else(|| missing("captioning"))?;
        let dtype = vision_dtype(device);
        let weights = bundle.weights(device, dtype);
        Ok(Self {
            vit: EvaVit::load(vision, &weights.pp("vit"))?,
            qformer: QFormer::load(captioner, vision.width, &weights.pp("captioner"))?,
            size: captioner.image_size,
            device: device.clone(),
            dtype,
        })
    }

    /// Visual tokens of each picture.
    fn look(&self, images: &[DecodedImage]) -> candle_core::Result<Vec<Vec<f32>>> {
        let pixels = pixel_values(images, self.size, &self.device, self.dtype)?;
        let tokens = self.qformer.forward_image(&self.vit.forward(&pixels)?)?;
        tokens.to_dtype(DType::F32)?.flatten_from(1)?.to_vec2()
    }
}

/// The type that the vision part computes in, which is frozen: f16 on a GPU, as in the reference.
pub(super) fn vision_dtype(device: &Device) -> DType {
    compute_dtype(device, DType::F16)
}

/// Time that the model of `bundle` takes to look at one of `pictures`; loading it does not count.
///
/// # Errors
///
/// When the model lacks a part, the device has no room or no picture can be read.
pub(super) fn time_to_look(
    bundle: &Bundle,
    device: &Device,
    pictures: &[PathBuf],
) -> Result<std::time::Duration> {
    let size = bundle.config().captioner.as_ref().map_or(224, |c| c.image_size) as u32;
    let decoded = pictures.iter().find_map(|path| decode_file(path, Some(size)).ok());
    let Some(decoded) = decoded else { return Err(FineTuneError::NoPictures) };
    let eyes = Eyes::open(bundle, device)?;
    let images = vec![decoded.image; batch_of(device)];
    let begun = std::time::Instant::now();
    eyes.look(&images)?;
    Ok(begun.elapsed() / images.len() as u32)
}

/// Pictures that are looked at together, as when photos are indexed.
fn batch_of(device: &Device) -> usize {
    if device.is_cpu() { 4 } else { 32 }
}

/// Computes the tokens of `pictures` that `cache` does not hold, in batches that depend on their
/// places in the list alone. The vision part is loaded when it is needed and dropped at the end.
///
/// # Errors
///
/// When the model lacks a part, the device has no room, or the cache cannot be written. A picture
/// that cannot be read is none.
pub(super) fn look_at(
    cache: &mut TokenCache,
    bundle: &Bundle,
    device: &Device,
    pictures: &[PathBuf],
    watch: &mut dyn Watch,
    stop: &AtomicBool,
) -> Result<Looked> {
    let mut looked = Looked { slots: vec![None; pictures.len()], ..Looked::default() };
    let mut eyes: Option<Eyes> = None;
    let size = bundle.config().captioner.as_ref().map_or(224, |c| c.image_size) as u32;
    let batch = batch_of(device);
    for (at, paths) in pictures.chunks(batch).enumerate() {
        if stop.load(Ordering::Relaxed) {
            looked.stopped = true;
            break;
        }
        let first = at * batch;
        let keys: Vec<std::io::Result<Key>> = paths.par_iter().map(|path| key(path)).collect();
        let known = |key: &std::io::Result<Key>| {
            key.as_ref().ok().and_then(|key| cache.slots.get(key)).copied()
        };
        let missing: Vec<bool> = keys.iter().map(|key| known(key).is_none()).collect();
        let read = |wanted: &dyn Fn(usize) -> bool| -> Vec<Option<std::result::Result<_, String>>> {
            let wanted: Vec<bool> = (0..paths.len()).map(wanted).collect();
            let read = paths.par_iter().zip(&wanted).map(|(path, &wanted)| {
                wanted.then(|| decode_file(path, Some(size)).map_err(|e| e.to_string()))
            });
            read.collect()
        };
        let mut decoded = read(&|i| missing[i]);
        if decoded.iter().flatten().any(std::result::Result::is_ok) {
            // A batch that was cut is computed again as a whole: its numbers may depend, in
            // their last bits, on how many are computed together.
            for (have, more) in decoded.iter_mut().zip(read(&|i| !missing[i])) {
                *have = have.take().or(more);
            }
            let mut images = Vec::with_capacity(paths.len());
            let mut of = Vec::with_capacity(paths.len());
            for (i, decoded) in decoded.iter().enumerate() {
                if let Some(Ok(decoded)) = decoded {
                    images.push(decoded.image.clone());
                    of.push(i);
                }
            }
            if eyes.is_none() {
                eyes = Some(Eyes::open(bundle, device)?);
            }
            let tokens = eyes.as_ref().map(|eyes| eyes.look(&images)).transpose()?;
            let mut new = Vec::with_capacity(of.len());
            for (i, values) in of.into_iter().zip(tokens.unwrap_or_default()) {
                let fits = values.iter().all(|&v| f16::from_f32(v).is_finite());
                match (&keys[i], missing[i], fits) {
                    (Ok(key), true, true) => new.push((*key, values)),
                    (Ok(_), true, false) => {
                        decoded[i] = Some(Err("its visual tokens are not finite".to_owned()));
                    }
                    _ => {}
                }
            }
            cache.append(&new)?;
        }
        for (i, (key, decoded)) in keys.iter().zip(decoded).enumerate() {
            let slot = key.as_ref().ok().and_then(|key| cache.slots.get(key)).copied();
            looked.slots[first + i] = slot;
            if slot.is_none() {
                let reason = match (key, decoded) {
                    (_, Some(Err(reason))) => reason,
                    (Err(error), _) => error.to_string(),
                    _ => "it cannot be read".to_owned(),
                };
                watch.bad_picture(&paths[i], &reason);
                looked.failed.push((first + i, reason));
            }
        }
        watch.looked((first + paths.len()) as u64, pictures.len() as u64);
    }
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(seed: u8) -> (Key, Vec<f32>) {
        ([seed; KEY], (0..6).map(|i| f32::from(seed) + i as f32 * 0.25).collect())
    }

    fn slots(cache: &TokenCache) -> Vec<u8> {
        let mut keys: Vec<_> = cache.slots.iter().map(|(key, slot)| (*slot, key[0])).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    #[test]
    fn tokens_come_back_and_a_cut_or_damaged_end_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens");
        let open = || TokenCache::open(&path, "model", 2, 3).unwrap();
        let mut cache = open();
        cache.append(&[tokens(1), tokens(2)]).unwrap();
        cache.append(&[tokens(3)]).unwrap();
        let read = cache.tokens(&[2, 0], &Device::Cpu).unwrap();
        assert_eq!(read.dims(), [2, 2, 3]);
        let flat = read.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat, [tokens(3).1, tokens(1).1].concat());
        let in_use = TokenCache::open(&path, "model", 2, 3).unwrap_err();
        assert!(matches!(in_use, FineTuneError::InUse { .. }), "{in_use}");
        drop(cache);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), HEADER + 3 * (32 + 12 + 8));
        for cut in [whole.len() - 1, whole.len() - 52 + 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut cache = open();
            assert_eq!(slots(&cache), [1, 2]);
            cache.append(&[tokens(4)]).unwrap();
            drop(cache);
            assert_eq!(slots(&open()), [1, 2, 4]);
        }
        let mut damaged = whole.clone();
        damaged[HEADER + 52 + 40] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(slots(&open()), [1]);
        for cut in [0, 10, HEADER - 1, HEADER] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(slots(&open()), [0; 0]);
        }
    }

    #[test]
    fn tokens_of_another_model_are_forgotten_and_other_files_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tokens");
        let mut cache = TokenCache::open(&path, "model", 2, 3).unwrap();
        cache.append(&[tokens(1)]).unwrap();
        drop(cache);
        assert_eq!(slots(&TokenCache::open(&path, "other", 2, 3).unwrap()), [0; 0]);
        std::fs::write(&path, "my diary, which is longer than the header of a file of tokens is")
            .unwrap();
        let error = TokenCache::open(&path, "model", 2, 3).unwrap_err();
        assert!(matches!(error, FineTuneError::NotTokens { .. }), "{error}");
        assert!(std::fs::read(&path).unwrap().starts_with(b"my diary"));
    }
}
