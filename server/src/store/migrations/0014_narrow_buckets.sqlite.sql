-- Boards count their members in buckets of two widths from now on: they are folded anew from the log.
DELETE FROM projection;
DELETE FROM stat_day;
DELETE FROM board_score;
DELETE FROM board_bucket;
DELETE FROM board_owner;

-- Ranks are of those who have points. A look-up by key says nothing of the score, so no planner can take this index for it: with
-- the whole table in it, a PostgreSQL without statistics did, and read a whole board for each member.
DROP INDEX idx_board_score_rank;
CREATE INDEX idx_board_score_rank ON board_score (tenant_id, board, score DESC, member_id) WHERE score <> 0;
