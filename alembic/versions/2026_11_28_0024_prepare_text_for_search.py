"""Index posts for search in linear time, with our own SQL functions.

PostgreSQL's text parser takes quadratic time for text such as `a_a_a_…`, and so does `normalize` for long runs of
combining marks. The parser also treats tags, URLs and signed numbers as single words. So this replaces it:
`search_vector` builds the index entry and `search_query` the query, both from `search_words`. The column `search` keeps
its name and its index. A trigger fills it, so that it is correct whichever release writes.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"

MAX_TITLE = 300
MAX_CONTENT = 40_000
MAX_WORD = 64
# More words than 40,000 characters of English contain. Bounds the time for texts whose every character is a word.
MAX_WORDS = 10_000
MAX_COMPOUNDS = 4_096
MAX_QUERY = 500
MAX_QUERY_WORDS = 32

# Character ranges for regular expressions. They are explicit, because PostgreSQL's letter classes depend on the
# database's locale. Characters in none of them are parts of words.
SPACES = r"\u0001-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
# Invisible characters inside words: soft hyphens, joiners, direction marks, variation selectors.
IGNORED = (
    r"\u00AD\u034F\u061C\u180B-\u180E\u200B-\u200F\u202A-\u202E\u2060-\u206F\uFE00-\uFE0F\uFEFF\U000E0000-\U000E0FFF"
)
# Scripts without spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese), Hangul, and emoji.
UNSPACED = (
    r"\u0E01-\u0E37\u0E40-\u0E47\u0E4C-\u0E4E\u0E50-\u0E59\u0E81-\u0EB7\u0EBB-\u0EC7\u0ECC-\u0EDF\u1000-\u1036\u1038"
    r"\u103B-\u1049\u1050-\u108C\u108E-\u109D\u1100-\u11FF\u1780-\u17D1\u17D3\u17E0-\u17E9\u2600-\u2767\u2794-\u27BF"
    r"\u2E80-\u2FD5\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303C\u3041-\u3096\u309D-\u309F\u30A1-\u30FA"
    r"\u30FC-\u318E\u31A0-\u31BF\u31F0-\u31FF\u3400-\u4DBF\u4E00-\uA4CF\uA960-\uA97C\uAC00-\uD7FB\uF900-\uFAFF"
    r"\uFF66-\uFF9D\U0001F000-\U0001FBFF\U00020000-\U0003FFFF"
)
# Combining marks of these scripts. They are separate because `normalize` reorders only them.
UNSPACED_MARKS = (
    r"\u0E38-\u0E3A\u0E48-\u0E4B\u0EB8-\u0EBA\u0EC8-\u0ECB\u1037\u1039\u103A\u108D\u17D2\u302A-\u302F\u3099\u309A"
)
# Characters whose runs need no cut before `normalize`.
NOT_CUT = r"\u0001-\u007F" + SPACES + UNSPACED
RUN = UNSPACED + UNSPACED_MARKS
# Joiners of the parts of one word: wi-fi, it's, sure_thing, node.js, bob@example.com.
JOINERS = r"\u0027\u002D\u002E\u0040\u005F"
# All other punctuation, symbols and spaces.
BREAKS = (
    r"\u0001-\u0026\u0028-\u002C\u002F\u003A-\u003F\u005B-\u005E\u0060\u007B-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB"
    r"\u00BF\u00D7\u00F7\u02C2-\u02C5\u02D2-\u02DF\u0375\u037E\u0384\u0385\u0387\u055A-\u055F\u0589-\u058F\u05BE\u05C0"
    r"\u05C3\u05C6\u05F3\u05F4\u0600-\u060F\u061B-\u061F\u066A-\u066D\u06D4\u0700-\u070F\u0964\u0965\u0970\u0DF4\u0E3F"
    r"\u0E4F\u0E5A\u0E5B\u0F01-\u0F17\u0F3A-\u0F3D\u104A-\u104F\u10FB\u1360-\u1368\u1400\u17D4-\u17D6\u17D8-\u17DB"
    r"\u1800-\u180A\u1FBD\u1FBF-\u1FC1\u1FCD-\u1FCF\u1FDD-\u1FDF\u1FED-\u1FEF\u1FFD-\u2070\u207A-\u207E\u208A-\u208E"
    r"\u20A0-\u20C0\u2100\u2101\u2103-\u2106\u2114\u2116-\u2118\u211E-\u2123\u2190-\u25FF\u2768-\u2793\u27C0-\u2BFF"
    r"\u2E00-\u2E7F\u2FF0-\u3004\u3008-\u3020\u3030\u3036\u3037\u303D-\u303F\u309B\u309C\u30A0\u30FB\u3190-\u319F"
    r"\u31C0-\u31E3\uE000-\uF8FF\uFD3E-\uFD4F\uFDCF\uFDFC-\uFDFF\uFE10-\uFE19\uFE30-\uFE6B\uFF00-\uFF0F\uFF1A-\uFF20"
    r"\uFF3B-\uFF40\uFF5B-\uFF65\uFFE0-\uFFFF\u1680"
)
SEPARATORS = BREAKS + JOINERS
# Marks the start of each run of unspaced characters. It is one of `BREAKS`, so folded text cannot contain it.
RUN_MARK = "chr(57344)"

# Named collations do not exist on every server. So use one only if the database's own folds ASCII letters only.
LOWER = """
    DO $do$
    DECLARE
        candidate text;
        chosen text;
        lowered text := lower(chr(201));
    BEGIN
        FOR candidate IN
            SELECT quote_ident(nspname) || '.' || quote_ident(collname)
            FROM pg_collation JOIN pg_namespace AS namespace ON namespace.oid = collnamespace
            WHERE collname IN ('pg_c_utf8', 'und-x-icu', 'C.utf8') AND nspname = 'pg_catalog'
                AND collencoding IN (-1, pg_char_to_encoding('UTF8'))
            ORDER BY array_position(ARRAY['pg_c_utf8', 'und-x-icu', 'C.utf8'], collname::text)
        LOOP
            EXIT WHEN lowered = chr(233);
            BEGIN
                EXECUTE format('SELECT lower(chr(201) COLLATE %s)', candidate) INTO lowered;
                chosen := candidate;
            EXCEPTION WHEN OTHERS THEN  -- A server that was built without it may list it all the same.
                CONTINUE;
            END;
        END LOOP;
        EXECUTE format(
            'CREATE FUNCTION search_lower(given text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS %L',
            'SELECT lower(given' || coalesce(' COLLATE ' || chosen, '') || ')'
        );
    END $do$
"""
# Normalised words with their joiners, separated by spaces. Words are cut to the maximum length before `normalize`.
# That limits runs of combining marks, without which its time is not linear.
FOLD = rf"""
    CREATE FUNCTION search_fold(given text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        folded text := given;
    BEGIN
        IF octet_length(folded) > length(folded) THEN
            folded := regexp_replace(folded, '[{IGNORED}]+', '', 'g');
            folded := regexp_replace(folded, '([^{NOT_CUT}]{{{MAX_WORD}}})[^{NOT_CUT}]+', '\1', 'g');
            folded := left(normalize(folded, NFKC), {MAX_CONTENT});
            -- The final sigma, the typographic apostrophe and the hyphen.
            folded := translate(search_lower(folded), chr(962) || chr(8217) || chr(8208), chr(963) || '''-');
        ELSE
            folded := lower(folded);
        END IF;
        IF strpos(folded, '++') > 0 THEN
            folded := regexp_replace(folded, '(?<![^{SEPARATORS}])[a-z](?=\+\+(?![^{SEPARATORS}]|\+))', '\& \&pp', 'g');
        END IF;
        IF strpos(folded, '#') > 0 THEN
            folded := regexp_replace(folded, '(?<![^{SEPARATORS}])[a-z](?=#(?![^{SEPARATORS}]|#))', '\& \&sharp', 'g');
        END IF;
        folded := regexp_replace(folded, '[{BREAKS}]+', ' ', 'g');
        IF octet_length(folded) > length(folded) THEN
            folded := regexp_replace(folded, '[{RUN}]+', ' ' || {RUN_MARK} || '\& ', 'g');
        END IF;
        RETURN folded;
    END $$
"""
# The words of folded text in order. A run of unspaced characters becomes its bigrams and its last character. So each
# character begins one word, and any part of the run can be found.
WORDS = f"""
    CREATE FUNCTION search_words(folded text) RETURNS SETOF text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 20 AS $$
    DECLARE
        spaced text := translate(folded, '''-._@', '     ');
    BEGIN
        IF spaced !~ ({RUN_MARK} || '[^ ]{{2}}') THEN  -- No run is longer than a character.
            RETURN QUERY
                SELECT left(ltrim(word, {RUN_MARK}), {MAX_WORD}) FROM string_to_table(spaced, ' ') AS word
                WHERE word <> '' LIMIT {MAX_WORDS};
        ELSE
            RETURN QUERY
                WITH part AS MATERIALIZED (
                    SELECT n, word, starts_with(word, {RUN_MARK}) AND length(word) > 2 AS is_run
                    FROM string_to_table(spaced, ' ') WITH ORDINALITY AS split (word, n) WHERE word <> ''
                    LIMIT {MAX_WORDS}
                )
                SELECT word || CASE WHEN lead(n) OVER place = n THEN lead(word) OVER place ELSE '' END
                FROM (
                    SELECT n, 1 AS m, left(ltrim(word, {RUN_MARK}), {MAX_WORD}) AS word FROM part WHERE NOT is_run
                    UNION ALL
                    SELECT n, m, character
                    FROM part, string_to_table(substr(word, 2), NULL) WITH ORDINALITY AS split (character, m)
                    WHERE is_run
                ) AS piece
                WINDOW place AS (ORDER BY n, m) LIMIT {MAX_WORDS};
        END IF;
    END $$
"""
# Words with joiners, written without them, so that `wi-f` and `wifi` find wi-fi.
COMPOUNDS = f"""
    CREATE FUNCTION search_compounds(folded text) RETURNS SETOF text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE ROWS 2 AS $$
    BEGIN
        IF folded ~ '[{JOINERS}]' THEN
            RETURN QUERY
                SELECT left(regexp_replace(word, '[{JOINERS}]+', '', 'g'), {MAX_WORD})
                FROM string_to_table(folded, ' ') AS word WHERE word ~ '[^{JOINERS}][{JOINERS}]+[^{JOINERS}]'
                LIMIT {MAX_COMPOUNDS};
        END IF;
    END $$
"""
# Words with positions, compounds without, and after an asterisk the suffixes of the title's words, in which a search
# finds parts of words. The functions declare ROWS: with the default of 1,000, indexing an ordinary post takes ten times
# as long on PostgreSQL 18.
VECTOR = f"""
    CREATE FUNCTION search_vector(title text, content text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        heading text := search_fold(left(title, {MAX_TITLE}));
        folded text := heading || ' ' || search_fold(left(content, {MAX_CONTENT}));
    BEGIN
        RETURN coalesce((
            SELECT string_agg(entry, ' ') FROM (
                SELECT '''' || word || ''':' || n AS entry
                FROM search_words(folded) WITH ORDINALITY AS found (word, n)
                UNION ALL
                SELECT '''' || word || '''' FROM search_compounds(folded) AS word
                UNION ALL
                SELECT '''*' || substr(word, n) || ''''
                FROM search_words(left(heading, {MAX_TITLE})) AS word, generate_series(2, length(word) - 2) AS n
            ) AS entries
        ), '')::tsvector;
    END $$
"""
# Words, "phrases", -exclusions and `or`, as in websearch_to_tsquery. The last word may be a prefix. A word of several
# parts matches the phrase of its parts or its compound. With `finds_parts`, words also match inside words of titles.
QUERY = f"""
    CREATE FUNCTION search_query(given text, finds_parts boolean) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        item record;
        token record;
        folded text;
        phrase text;
        previous text;
        place bigint;
        parts integer;
        words integer := 0;
        made text := '';
        junction text := '';
        ending text;
        compound text;
    BEGIN
        FOR item IN
            SELECT
                coalesce(part[3], part[2]) AS words,
                part[3] IS NULL AS is_quoted,
                coalesce(part[1] = '-', part[3] ~ '^-+[^-0-9]') AS is_excluded,
                part[3] ~ '^[oO][rR]$' AND n > 1 AND n < count(*) OVER () AS is_or,
                n = count(*) OVER () AND given !~ '"[{SPACES}]*$' AS is_last
            FROM regexp_matches(
                -- Typographic quotation marks are quotation marks.
                regexp_replace(left(given, {MAX_QUERY}), '[\\u201C-\\u201F\\u00AB\\u00BB\\uFF02]', '"', 'g'),
                '(-?)"([^"]*)"?|([^"{SPACES}]+)', 'g'
            ) WITH ORDINALITY AS found (part, n)
            ORDER BY n
        LOOP
            IF item.is_or THEN
                junction := CASE WHEN made = '' THEN '' ELSE ' | ' END;
                CONTINUE;
            END IF;
            folded := search_fold(item.words);
            phrase := '';
            previous := '';
            parts := 0;
            FOR token IN SELECT word, n FROM search_words(folded) WITH ORDINALITY AS found (word, n) ORDER BY n LOOP
                -- The last character of a run is in the pair before it, too.
                CONTINUE WHEN length(token.word) = 1 AND length(previous) = 2 AND right(previous, 1) = token.word
                    AND token.word ~ '[{RUN}]';
                EXIT WHEN words = {MAX_QUERY_WORDS};
                phrase := phrase || CASE WHEN phrase = '' THEN '' ELSE ' <' || token.n - place || '> ' END
                    || '''' || token.word || '''' || CASE WHEN token.word ~ '^[{RUN}]$' THEN ':*' ELSE '' END;
                previous := token.word;
                place := token.n;
                parts := parts + 1;
                words := words + 1;
            END LOOP;
            CONTINUE WHEN phrase = '';
            ending := CASE WHEN item.is_last AND NOT item.is_excluded THEN ':*' ELSE '' END;
            compound := NULL;
            IF parts > 1 AND NOT item.is_quoted AND btrim(folded) !~ ' ' THEN
                SELECT '''' || word || '''' || ending INTO compound FROM search_compounds(folded) AS word;
            END IF;
            IF compound IS NOT NULL THEN
                -- Short ends begin too many words, and looking all of them up takes long. The compound has them.
                phrase := phrase || CASE WHEN length(previous) > 2 THEN ending ELSE '' END || ' | ' || compound;
            ELSIF finds_parts AND parts = 1 AND length(previous) > 2 AND NOT (item.is_quoted OR item.is_excluded) THEN
                phrase := phrase || ':* | ''*' || previous || ''':*';
            ELSIF previous !~ '^[{RUN}]' THEN
                phrase := phrase || ending;
            END IF;
            made := made || junction || CASE WHEN item.is_excluded THEN '!' ELSE '' END || '(' || phrase || ')';
            junction := ' & ';
        END LOOP;
        RETURN nullif(made, '')::tsquery;
    END $$
"""


def upgrade() -> None:
    for function in (LOWER, FOLD, WORDS, COMPOUNDS, VECTOR, QUERY):
        op.execute(function)
    op.execute("""
        CREATE FUNCTION set_post_search() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.search := search_vector(NEW.title, NEW.content);
            RETURN NEW;
        END $$
    """)
    # Changes the catalogue only. Existing posts keep their old index entries until migration 0028. No release writes
    # the column itself, so none depends on the expression.
    op.execute("""
        -- squawk-ignore ban-drop-generated-expression
        ALTER TABLE posts ALTER COLUMN search DROP EXPRESSION
    """)
    op.execute("""
        CREATE TRIGGER posts_search BEFORE INSERT OR UPDATE OF title, content ON posts
        FOR EACH ROW EXECUTE FUNCTION set_post_search()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER posts_search ON posts")
    op.execute("DROP FUNCTION set_post_search()")
    op.drop_column("posts", "search")
    op.execute("""
        ALTER TABLE posts ADD COLUMN search tsvector NOT NULL
            GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, title || ' ' || left(content, 40000))) STORED
    """)
    op.execute("CREATE INDEX posts_search_idx ON posts USING gin (search)")
    op.execute("DROP FUNCTION search_query(text, boolean)")
    op.execute("DROP FUNCTION search_vector(text, text)")
    for name in ("compounds", "words", "fold", "lower"):
        op.execute(f"DROP FUNCTION search_{name}(text)")
