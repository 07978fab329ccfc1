-- Further kinds of usage. The tokens are disjoint from the other kinds; searches and images are counted by the piece.
ALTER TABLE usage ADD COLUMN input_image INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN output_image INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN web_searches INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN images INTEGER NOT NULL DEFAULT 0;
