//! Which parts of a line are wanted: a tree of keys whose leaves are numbered slots.
//!
//! A line is walked once, and at each key of an object the tree says whether anything below it is wanted. Lines of one
//! producer have their keys in one order, so the child of member *k* is guessed from the line before, which costs one
//! comparison instead of a lookup.

use std::collections::HashMap;

/// Members of an object whose order is remembered.
const GUESSES: usize = 512;

/// An unknown key is the client's text: it is compared next time, but a long one is not kept.
const LONGEST_KEY: usize = 128;

/// A node of the tree.
pub(super) type NodeId = usize;

/// The tree, with its root at 0.
pub(super) struct Paths {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Default)]
struct Node {
    slot: Option<usize>,
    children: HashMap<Box<str>, NodeId>,
    guesses: Vec<(String, Option<NodeId>)>,
}

impl Paths {
    pub fn new() -> Paths {
        Paths {
            nodes: vec![Node::default()],
            slots: 0,
        }
    }

    /// The slot of what stands at the end of a path.
    pub fn slot(&mut self, path: &[String]) -> usize {
        let mut at = 0;
        for key in path {
            at = match self.nodes[at].children.get(key.as_str()) {
                Some(child) => *child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[at].children.insert(key.as_str().into(), child);
                    child
                }
            };
        }
        let next = self.slots;
        let slot = *self.nodes[at].slot.get_or_insert(next);
        self.slots = self.slots.max(slot + 1);
        slot
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The slot of a node.
    pub fn slot_of(&self, node: NodeId) -> Option<usize> {
        self.nodes[node].slot
    }

    /// Whether anything below a node is wanted.
    pub fn has_children(&self, node: NodeId) -> bool {
        !self.nodes[node].children.is_empty()
    }

    /// The node below `node` that the key of its member `position` leads to.
    pub fn child(&mut self, node: NodeId, position: usize, key: &str) -> Option<NodeId> {
        let node = &mut self.nodes[node];
        match node.guesses.get(position) {
            Some((guess, child)) if guess == key => return *child,
            _ => {}
        }
        let child = node.children.get(key).copied();
        if position < GUESSES && key.len() <= LONGEST_KEY {
            if node.guesses.len() <= position {
                node.guesses.resize_with(position + 1, Default::default);
            }
            let guess = &mut node.guesses[position];
            guess.0.clear();
            guess.0.push_str(key);
            guess.1 = child;
        }
        child
    }

    /// Every slot below a node.
    pub fn slots_below(&self, node: NodeId, found: &mut Vec<usize>) {
        for child in self.nodes[node].children.values() {
            found.extend(self.nodes[*child].slot);
            self.slots_below(*child, found);
        }
    }
}
