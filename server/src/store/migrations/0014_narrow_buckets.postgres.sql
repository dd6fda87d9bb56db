-- Boards count their members in buckets of two widths from now on: they are folded anew from the log.
DELETE FROM projection;
DELETE FROM stat_day;
DELETE FROM board_score;
DELETE FROM board_bucket;
DELETE FROM board_owner;
