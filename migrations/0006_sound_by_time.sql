-- Further kinds of usage that are no tokens: sound listened to, in milliseconds, and text spoken, in characters.
ALTER TABLE usage ADD COLUMN audio_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN characters INTEGER NOT NULL DEFAULT 0;
