//! Questions about photos, answered from visual tokens.
//!
//! Tokens of an indexed photo are read from the index: the file need not even be there. Any
//! other photo is decoded and encoded first.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tinyfind_index::{ContentHash, DocId, IndexReader, Matrix, SearchError, StoredPhoto};

use crate::decode::{DecodeError, DecodedImage, PhotoFile, decode_file};
use crate::search::check_model;
use crate::vlm::{Question, Result, Turn, Vlm, VlmError};

/// A photo that somebody wants to know something about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its number and content when it was last seen in the index, where they are known: it is
    /// found by them if it was moved since.
    pub seen: Option<(DocId, ContentHash)>,
    /// Where it lies, or lay, as the crawl names it: absolute.
    pub path: PathBuf,
}

/// A photo that can be asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Photo {
    /// Where it lies.
    pub path: PathBuf,
    /// What the model looks at.
    pub visual_tokens: Matrix,
    /// Its caption in the index, if it has one there.
    pub caption: Option<String>,
}

/// Why photos could not be opened for questions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The model could not encode a photo.
    #[error("the model could not look at the photos")]
    Model(#[from] VlmError),
    /// The index could not be read.
    #[error("the index could not be read")]
    Index(#[from] SearchError),
}

/// Opens photos for questions: one result each, in the order given. A file that cannot be read
/// does not keep the others from being opened.
///
/// A photo comes from the index if it stands there with the content that its file has now, or
/// if its file is gone. An index that another model made is not looked at.
///
/// # Errors
///
/// When the model fails or the index cannot be read.
pub fn open_photos(
    reader: Option<&IndexReader>,
    vlm: &mut dyn Vlm,
    subjects: &[Subject],
) -> std::result::Result<Vec<std::result::Result<Photo, DecodeError>>, AskError> {
    let reader = reader.filter(|reader| check_model(reader.spec(), vlm.spec()).is_ok());
    let mut photos = Vec::with_capacity(subjects.len());
    let mut waiting: Vec<(usize, DecodedImage)> = Vec::new();
    for (place, subject) in subjects.iter().enumerate() {
        if let Some(reader) = reader
            && let Some(photo) = stored(reader, subject)?
        {
            photos.push(Ok(photo));
            continue;
        }
        let decoded = decode_file(&subject.path, Some(vlm.input_size()));
        photos.push(decoded.map(|decoded| {
            waiting.push((place, decoded.image));
            let path = subject.path.clone();
            Photo { path, visual_tokens: Matrix::new(0, 0, Vec::new()), caption: None }
        }));
    }
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(vlm.embed_batch().max(1)));
        let (places, images): (Vec<usize>, Vec<DecodedImage>) = waiting.into_iter().unzip();
        for (place, features) in places.into_iter().zip(vlm.embed_images(&images)?) {
            if let Ok(photo) = &mut photos[place] {
                photo.visual_tokens = features.visual_tokens;
            }
        }
        waiting = rest;
    }
    Ok(photos)
}

/// The photo as the index has it, if that is what its file shows.
fn stored(
    reader: &IndexReader,
    subject: &Subject,
) -> std::result::Result<Option<Photo>, SearchError> {
    let Some(photo) = current(reader, subject)? else { return Ok(None) };
    let visual_tokens = reader.visual_tokens(photo.doc)?;
    Ok(Some(Photo { path: photo.path, visual_tokens, caption: photo.caption }))
}

/// The photo that the index has of `subject`, if that is what its file shows, or if the file is
/// gone.
pub(crate) fn current(
    reader: &IndexReader,
    subject: &Subject,
) -> std::result::Result<Option<StoredPhoto>, SearchError> {
    Ok(find(reader, subject)?.filter(|photo| is_current(&photo.path, photo.hash)))
}

/// The photo that the index has at the path of `subject`, unless that is another one by now and
/// the one that was seen has been moved. Numbers alone prove nothing: a new index counts anew.
fn find(
    reader: &IndexReader,
    subject: &Subject,
) -> std::result::Result<Option<StoredPhoto>, SearchError> {
    let number = reader.find_path(&subject.path)?;
    let at_path = number.map(|doc| reader.photo(doc)).transpose()?.flatten();
    let Some((doc, hash)) = subject.seen else {
        return Ok(at_path);
    };
    if at_path.as_ref().is_some_and(|photo| photo.hash == hash) {
        return Ok(at_path);
    }
    let moved = reader.photo(doc)?.filter(|photo| photo.hash == hash);
    Ok(moved.or(at_path))
}

/// Whether a file still holds what was indexed, or is gone altogether (an unplugged disk).
fn is_current(path: &Path, hash: ContentHash) -> bool {
    match PhotoFile::read(path) {
        Ok(file) => file.hash() == hash,
        Err(DecodeError::Io { source }) => source.kind() == ErrorKind::NotFound,
        Err(_) => false,
    }
}

/// One question about each of several photos; the answers come in their order.
///
/// # Errors
///
/// When the model fails.
pub fn answer_each(
    vlm: &mut dyn Vlm,
    visual_tokens: &[&Matrix],
    question: &str,
) -> Result<Vec<String>> {
    let mut answers = Vec::with_capacity(visual_tokens.len());
    for batch in visual_tokens.chunks(vlm.caption_batch().max(1)) {
        let questions: Vec<Question<'_>> = batch
            .iter()
            .map(|visual_tokens| Question { visual_tokens, history: &[], question })
            .collect();
        answers.extend(vlm.answer(&questions)?);
    }
    Ok(answers)
}

/// A caption of each photo, in their order: the one of the index, else a new one.
///
/// # Errors
///
/// When the model fails.
pub fn caption_each(vlm: &mut dyn Vlm, photos: &[&Photo]) -> Result<Vec<String>> {
    let without: Vec<&Matrix> = photos
        .iter()
        .filter(|photo| photo.caption.is_none())
        .map(|photo| &photo.visual_tokens)
        .collect();
    let mut written = Vec::with_capacity(without.len());
    for batch in without.chunks(vlm.caption_batch().max(1)) {
        written.extend(vlm.caption(batch)?);
    }
    let mut written = written.into_iter();
    let caption = |photo: &&Photo| photo.caption.clone().or_else(|| written.next());
    photos
        .iter()
        .map(caption)
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| VlmError::new("the model wrote fewer captions than there are photos"))
}

/// Questions about one photo, each of which may refer to what was said before.
#[derive(Debug, Clone)]
pub struct Conversation {
    visual_tokens: Matrix,
    history: Vec<Turn>,
}

impl Conversation {
    /// A conversation about the photo with these tokens, in which nothing was said yet.
    pub fn about(visual_tokens: Matrix) -> Self {
        Self { visual_tokens, history: Vec::new() }
    }

    /// What was said, oldest first.
    pub fn history(&self) -> &[Turn] {
        &self.history
    }

    /// Asks, and keeps question and answer for the next question.
    ///
    /// # Errors
    ///
    /// When the model fails; the conversation stays as it was.
    pub fn ask(&mut self, vlm: &mut dyn Vlm, question: &str) -> Result<String> {
        let asked =
            Question { visual_tokens: &self.visual_tokens, history: &self.history, question };
        let answer = vlm.answer(&[asked])?.pop();
        let answer = answer.ok_or_else(|| VlmError::new("the model gave no answer"))?;
        self.history.push(Turn { question: question.to_owned(), answer: answer.clone() });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::testing::{BLUE, Picture, RED, index};
    use crate::vlm::FakeVlm;

    fn picture_file(path: &Path, color: [u8; 3]) -> ContentHash {
        image::RgbImage::from_pixel(8, 8, image::Rgb(color)).save(path).unwrap();
        ContentHash::of(&std::fs::read(path).unwrap())
    }

    fn subject(path: &Path) -> Subject {
        Subject { seen: None, path: path.to_owned() }
    }

    fn colors(vlm: &mut FakeVlm, photos: &[Photo]) -> Vec<String> {
        let tokens: Vec<&Matrix> = photos.iter().map(|photo| &photo.visual_tokens).collect();
        answer_each(vlm, &tokens, "which colour?").unwrap()
    }

    #[test]
    fn an_indexed_photo_is_answered_from_stored_tokens_even_when_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (here, gone) = (folder.path().join("here.png"), folder.path().join("gone.png"));
        let mut pictures = [Picture::new(&here, RED), Picture::new(&gone, BLUE)];
        pictures[0].hash = Some(picture_file(&here, RED));
        let reader = index(&folder.path().join("index"), &pictures, true);
        let mut vlm = FakeVlm::default();
        let photos = open_photos(Some(&reader), &mut vlm, &[subject(&gone), subject(&here)]);
        let photos: Vec<Photo> = photos.unwrap().into_iter().map(|it| it.unwrap()).collect();
        assert_eq!(colors(&mut vlm, &photos), ["blue", "red"]);
        assert_eq!(vlm.calls().embedded, 0);
        let caption = caption_each(&mut vlm, &[&photos[0]]).unwrap().remove(0);
        assert_eq!((photos[0].caption.as_ref(), vlm.calls().captioned), (Some(&caption), 0));
    }

    #[test]
    fn a_photo_that_changed_or_is_not_indexed_is_encoded_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let changed = [Picture::new(path("changed.png"), RED)];
        let reader = index(&path("index"), &changed, true);
        let names = ["changed.png", "1.png", "2.png", "3.png", "4.png"];
        for name in names {
            picture_file(&path(name), BLUE);
        }
        let mut vlm = FakeVlm::default().with_batches(2, 2);
        let subjects = names.map(|name| subject(&path(name)));
        let photos = open_photos(Some(&reader), &mut vlm, &subjects).unwrap();
        let photos: Vec<Photo> = photos.into_iter().map(|it| it.unwrap()).collect();
        assert_eq!(colors(&mut vlm, &photos), ["blue"; 5]);
        assert_eq!((vlm.calls().embedded, vlm.calls().embed_batches), (5, 3));
        assert_eq!(photos[0].caption, None);
    }

    #[test]
    fn a_number_counts_only_for_the_content_that_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (red, blue) = (ContentHash::of(b"red"), ContentHash::of(b"blue"));
        let mut pictures = [Picture::new(path("red.png"), RED), Picture::new(path("b"), BLUE)];
        (pictures[0].hash, pictures[1].hash) = (Some(red), Some(blue));
        let reader = index(&path("index"), &pictures, true);
        let at = |name| reader.find_path(&path(name)).unwrap().unwrap();
        let mut vlm = FakeVlm::default();
        let mut open = |name: &str, doc, hash| {
            let subject = Subject { seen: Some((doc, hash)), path: path(name) };
            let opened = open_photos(Some(&reader), &mut vlm, &[subject]).unwrap().remove(0);
            opened.ok().map(|photo| photo.path)
        };
        // Another index gave the numbers.
        assert_eq!(open("red.png", at("b"), red), Some(path("red.png")));
        // Moved since, whether or not another photo took its place.
        assert_eq!(open("moved.png", at("b"), blue), Some(path("b")));
        assert_eq!(open("red.png", at("b"), blue), Some(path("b")));
        // The path holds another content, and the one that was seen is gone.
        assert_eq!(open("red.png", at("b"), ContentHash::of(b"old")), Some(path("red.png")));
        // All that is left of it is a number, which means another photo now.
        assert_eq!(open("gone.png", at("b"), red), None);
        assert_eq!(vlm.calls().embedded, 0);
    }

    #[test]
    fn a_broken_file_does_not_keep_others_from_being_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (bad, good) = (folder.path().join("bad.jpg"), folder.path().join("good.png"));
        std::fs::write(&bad, "no photo at all").unwrap();
        picture_file(&good, RED);
        let mut vlm = FakeVlm::default();
        let photos = open_photos(None, &mut vlm, &[subject(&bad), subject(&good)]).unwrap();
        assert!(photos[0].is_err());
        assert_eq!(photos[1].as_ref().unwrap().visual_tokens.dim, vlm.spec().token_dim);
    }

    #[test]
    fn new_captions_stand_between_stored_ones_in_order() {
        let mut vlm = FakeVlm::default().with_batches(1, 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red.png");
        picture_file(&path, RED);
        let opened = open_photos(None, &mut vlm, &[subject(&path)]).unwrap().remove(0).unwrap();
        let stored = Photo { caption: Some("a stored one".to_owned()), ..opened.clone() };
        let captions = caption_each(&mut vlm, &[&opened, &stored, &opened]).unwrap();
        assert_eq!(captions[1], "a stored one");
        assert!(captions[0].contains("red") && captions[0] == captions[2], "{captions:?}");
    }

    /// Answers with how much was said before.
    struct Counting(FakeVlm);

    impl Vlm for Counting {
        fn spec(&self) -> &tinyfind_index::ModelSpec {
            self.0.spec()
        }

        fn input_size(&self) -> u32 {
            self.0.input_size()
        }

        fn embed_images(
            &mut self,
            images: &[DecodedImage],
        ) -> Result<Vec<tinyfind_index::Features>> {
            self.0.embed_images(images)
        }

        fn embed_queries(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            self.0.embed_queries(texts)
        }

        fn caption(&mut self, visual_tokens: &[&Matrix]) -> Result<Vec<String>> {
            self.0.caption(visual_tokens)
        }

        fn answer(&mut self, questions: &[Question<'_>]) -> Result<Vec<String>> {
            let said = |turn: &Turn| format!("{}-{}", turn.question, turn.answer);
            let history = |it: &Question<'_>| it.history.iter().map(said).collect::<Vec<_>>();
            Ok(questions.iter().map(|it| format!("[{}]", history(it).join(" "))).collect())
        }

        fn match_probability(
            &mut self,
            visual_tokens: &[&Matrix],
            statement: &str,
        ) -> Result<Vec<f32>> {
            self.0.match_probability(visual_tokens, statement)
        }
    }

    #[test]
    fn a_conversation_remembers_what_was_said() {
        let mut vlm = Counting(FakeVlm::default());
        let mut conversation = Conversation::about(Matrix::new(0, 0, Vec::new()));
        assert_eq!(conversation.ask(&mut vlm, "a").unwrap(), "[]");
        assert_eq!(conversation.ask(&mut vlm, "b").unwrap(), "[a-[]]");
        assert_eq!(conversation.ask(&mut vlm, "c").unwrap(), "[a-[] b-[a-[]]]");
        assert_eq!(conversation.history().len(), 3);
    }
}
