"""Generation: a trained model fills the gaps of documents, or edits documents."""
