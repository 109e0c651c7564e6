-- Topics that were made again after they had been lost. A topic that begins at offset 0 otherwise holds everything that
-- was ever sent to it: whoever compares topics with databases must know where that is not so.
CREATE TABLE lost_topics (
    topic   text        PRIMARY KEY, -- without prefix
    made_at timestamptz NOT NULL DEFAULT now() -- when it was made again, the last time
);
