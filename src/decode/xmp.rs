//! Titles, keywords and places of an XMP packet.
//!
//! XMP says the same thing in several ways: a property is an element or an attribute of an
//! `rdf:Description`, and its value a text, or a list of `rdf:li`, of which a list of languages
//! wants the default one. Source: XMP specification, part 1, section 7.

use roxmltree::{Document, Node, ParsingOptions};

use super::notes::Notes;

/// Most elements and texts of a packet that is read: long histories of edits have thousands.
const MAX_NODES: u32 = 50_000;
/// Most items of a list that are read.
const MAX_ITEMS: usize = 1000;

/// Most declarations of namespaces: a packet has some thirty, and each costs as much as there are
/// declarations around it.
const MAX_NAMESPACES: usize = 256;

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const DUBLIN_CORE: &str = "http://purl.org/dc/elements/1.1/";
const PHOTOSHOP: &str = "http://ns.adobe.com/photoshop/1.0/";
const IPTC_CORE: &str = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/";
const IPTC_EXTENSION: &str = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// What an XMP packet says; `None` where it is not one.
pub(super) fn read(packet: &[u8]) -> Option<Notes> {
    let text = std::str::from_utf8(packet).ok()?;
    let text = text.trim_matches(|c: char| c == '\u{feff}' || c == '\0' || c.is_whitespace());
    if text.matches("xmlns").nth(MAX_NAMESPACES).is_some() {
        return None;
    }
    // Documents with types of their own are refused: they could grow without bound.
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let descriptions: Vec<Node> =
        document.descendants().filter(|node| node.has_tag_name((RDF, "Description"))).collect();
    let values = |namespace: &str, name: &str| -> Vec<String> {
        descriptions.iter().flat_map(|node| values(*node, namespace, name)).collect()
    };
    let mut notes = Notes::default();
    for title in values(DUBLIN_CORE, "title").iter().chain(&values(PHOTOSHOP, "Headline")) {
        notes.set_title(title);
    }
    for description in values(DUBLIN_CORE, "description") {
        notes.set_description(&description);
    }
    let people = values(IPTC_EXTENSION, "PersonInImage");
    for keyword in values(DUBLIN_CORE, "subject").iter().chain(&people) {
        notes.add_keyword(keyword);
    }
    let place = [(IPTC_CORE, "Location"), (PHOTOSHOP, "City"), (PHOTOSHOP, "State")];
    let place = place.into_iter().chain([(PHOTOSHOP, "Country")]);
    let place: Vec<String> =
        place.filter_map(|(namespace, name)| values(namespace, name).into_iter().next()).collect();
    notes.set_place(place.iter().map(String::as_str));
    Some(notes)
}

/// The values of a property of one description; of a list of languages the default one.
fn values(description: Node, namespace: &str, name: &str) -> Vec<String> {
    let mut values: Vec<String> =
        description.attribute((namespace, name)).map(str::to_owned).into_iter().collect();
    let properties = description.children().filter(|node| node.has_tag_name((namespace, name)));
    for property in properties {
        // The items of its list, not of lists inside them: those would be counted over and over.
        let items: Vec<Node> = property
            .children()
            .flat_map(|list| list.children())
            .filter(|node| node.has_tag_name((RDF, "li")))
            .take(MAX_ITEMS)
            .collect();
        let is_choice = property.children().any(|node| node.has_tag_name((RDF, "Alt")));
        if is_choice {
            let default =
                items.iter().find(|node| node.attribute((XML, "lang")) == Some("x-default"));
            values.extend(default.or(items.first()).map(|node| text(*node)));
        } else if items.is_empty() {
            values.push(text(property));
        } else {
            values.extend(items.into_iter().map(text));
        }
    }
    values
}

fn text(node: Node) -> String {
    node.children().filter_map(|child| child.text()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKET: &str = r#"<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<r:Description r:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
  xmlns:dc="http://purl.org/dc/elements/1.1/" photoshop:City="Como" photoshop:Country="Italy">
 <dc:title><r:Alt><r:li xml:lang="de">Das Boot</r:li><r:li xml:lang="x-default">The boat</r:li></r:Alt></dc:title>
 <dc:subject><r:Bag><r:li>rowing</r:li><r:li>lake &amp; sea</r:li></r:Bag></dc:subject>
</r:Description>
<r:Description r:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
  xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
 <dc:description>Painted
  in spring</dc:description>
 <e:PersonInImage><r:Seq><r:li>Aunt Mary</r:li></r:Seq></e:PersonInImage>
</r:Description></r:RDF></x:xmpmeta><?xpacket end="w"?>"#;

    #[test]
    fn every_way_to_write_a_property_is_read() {
        let mut expected = Notes::default();
        expected.set_title("The boat");
        expected.set_description("Painted in spring");
        for keyword in ["rowing", "lake & sea", "Aunt Mary"] {
            expected.add_keyword(keyword);
        }
        expected.set_place(["Como", "Italy"]);
        assert_eq!(read(PACKET.as_bytes()), Some(expected.clone()));
        let padded = ["\u{feff}", PACKET, "   \n\0\0"].concat();
        assert_eq!(read(padded.as_bytes()), Some(expected));
    }

    #[test]
    fn packets_that_could_grow_or_nest_without_bound_are_refused() {
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>"#;
        assert_eq!(read(bomb.as_bytes()), None);
        let deep = ["<a>".repeat(200_000), "</a>".repeat(200_000)].concat();
        assert_eq!(read(deep.as_bytes()), None);
        let mut nested: Vec<String> = (0..2000).map(|i| format!("<a xmlns:b{i}=\"c\">")).collect();
        nested.push("</a>".repeat(2000));
        assert_eq!(read(nested.concat().as_bytes()), None);
        assert_eq!(read(b"\xFF\xFE<\0x\0"), None);
        assert_eq!(read(b""), None);
    }

    #[test]
    fn lists_inside_lists_are_not_read_again_for_each_level() {
        let list = "<r:Bag><r:li>";
        let deep = [list.repeat(500), "x".to_owned(), "</r:li></r:Bag>".repeat(500)].concat();
        let packet = PACKET
            .replace("<r:Bag><r:li>rowing</r:li>", &["<r:Bag><r:li>", &deep, "</r:li>"].concat());
        let mut expected = Notes::default();
        expected.set_title("The boat");
        expected.set_description("Painted in spring");
        expected.add_keyword("lake & sea");
        expected.add_keyword("Aunt Mary");
        expected.set_place(["Como", "Italy"]);
        assert_eq!(read(packet.as_bytes()), Some(expected));
    }

    proptest! {
        #[test]
        fn a_damaged_packet_is_read_or_refused(
            at in 0..PACKET.len(), byte in any::<u8>(), length in 0..PACKET.len(),
        ) {
            let mut packet = PACKET.as_bytes().to_vec();
            packet[at] = byte;
            read(&packet);
            read(&packet[..length]);
        }
    }
}
