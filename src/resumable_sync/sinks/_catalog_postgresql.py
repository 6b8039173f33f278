"""What PostgreSQL's catalogs know about a table: all that makes it more than its rows.

Every text here that is SQL was made by the server, with its own quoting.
"""

from collections.abc import Sequence

import attrs
from sqlalchemy import Connection, text

__all__ = [
    "Grant",
    "OwnedSequence",
    "Piece",
    "Table",
    "find",
    "grants",
    "not_null_names",
    "obstacles",
    "pieces",
    "sequences",
    "trimmings",
]


@attrs.frozen(kw_only=True)
class Table:
    """A table.

    Attributes:
        oid: Its number.
        schema: Its schema, bare.
        name: Its name, bare.
        shown: Schema and name, quoted.
        method: Its access method, quoted; None if it has none.
        unlogged: Whether it is not in the write-ahead log.
        analyzed: Whether the planner knows anything about its rows.
        refers: Whether it has a foreign key to another table.
    """

    oid: int
    schema: str
    name: str
    shown: str
    method: str | None
    unlogged: bool
    analyzed: bool
    refers: bool


_TABLE = text("""
    SELECT c.oid, n.nspname AS schema, c.relname AS name, format('%I.%I', n.nspname, c.relname) AS shown,
        quote_ident(m.amname) AS method, c.relpersistence = 'u' AS unlogged, c.reltuples >= 0 AS analyzed,
        EXISTS (
            SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f' AND confrelid <> c.oid) AS refers
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
    WHERE c.oid = to_regclass(CAST(:quoted AS text))
""")


def find(connection: Connection, quoted: str) -> Table | None:
    """Give the table, or whatever else has that name; None if there is none."""
    row = connection.execute(_TABLE, {"quoted": quoted}).mappings().one_or_none()
    return None if row is None else Table(**row)


# What the table consists of ("part"), what stays when it is dropped ("kept"), and, as NULL, what depends on it from
# outside. It is found by walking the server's own record of dependencies, so that nothing is forgotten.
_OBSTACLES = text("""
    WITH RECURSIVE part (classid, objid, objsubid, role) AS (
        SELECT CAST('pg_class'::regclass AS oid), CAST(:table AS oid), 0, 'part'
        UNION
        SELECT d.classid, d.objid, d.objsubid, CASE d.classid
            WHEN 'pg_class'::regclass THEN (
                SELECT CASE
                    WHEN i.indrelid = :table OR (c.relkind = 'S' AND d.deptype = 'i') THEN 'part'
                    WHEN c.relkind = 't' OR (c.relkind = 'S' AND d.deptype = 'a') THEN 'kept' END
                FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE c.oid = d.objid)
            WHEN 'pg_type'::regclass THEN CASE d.deptype WHEN 'i' THEN 'part' END
            WHEN 'pg_constraint'::regclass THEN (
                SELECT 'part' FROM pg_constraint WHERE oid = d.objid AND conrelid = :table)
            WHEN 'pg_attrdef'::regclass THEN (SELECT 'part' FROM pg_attrdef WHERE oid = d.objid AND adrelid = :table)
            WHEN 'pg_trigger'::regclass THEN (
                SELECT 'part' FROM pg_trigger WHERE oid = d.objid AND (tgrelid = :table OR d.deptype = 'i'))
            WHEN 'pg_statistic_ext'::regclass THEN (
                SELECT 'part' FROM pg_statistic_ext WHERE oid = d.objid AND stxrelid = :table)
            END
        FROM part p JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid WHERE p.role = 'part'
    ),
    target AS (SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = :table)
    SELECT DISTINCT obstacle FROM (
        SELECT COALESCE(
                (SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite
                    WHERE p.classid = 'pg_rewrite'::regclass AND oid = p.objid AND ev_class <> :table),
                pg_describe_object(p.classid, p.objid, p.objsubid)) AS obstacle
            FROM part p WHERE role IS NULL
        UNION ALL SELECT 'a ' || CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table' ELSE 'relation that is no table' END
                || ' as the target' FROM target WHERE relkind <> 'r'
        UNION ALL SELECT 'its being temporary' FROM target WHERE relpersistence = 't'
        UNION ALL SELECT 'its type ' || reloftype::regtype FROM target WHERE reloftype <> 0
        UNION ALL SELECT 'row level security' FROM target WHERE relrowsecurity OR relforcerowsecurity
        UNION ALL SELECT 'its parent ' || inhparent::regclass FROM pg_inherits WHERE inhrelid = :table
        UNION ALL SELECT 'its child ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = :table
        UNION ALL SELECT 'publication ' || quote_ident(pubname) FROM pg_publication p, target t
            WHERE t.relpersistence = 'p' AND (puballtables OR EXISTS (
                SELECT FROM pg_publication_namespace WHERE pnpubid = p.oid AND pnnspid = t.relnamespace))
        UNION ALL SELECT 'a subscription, which writes to it' FROM pg_subscription_rel WHERE srrelid = :table
        UNION ALL SELECT 'security label of ' || provider FROM pg_seclabel
            WHERE classoid = 'pg_class'::regclass AND objoid = :table
        UNION ALL SELECT 'extension ' || quote_ident(e.extname) FROM part p
            JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.deptype IN ('e', 'x')
            JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
        UNION ALL SELECT 'trigger ' || quote_ident(tgname) || ', whose function this role may not execute'
            FROM pg_trigger
            WHERE tgrelid = :table AND NOT tgisinternal AND NOT has_function_privilege(tgfoid, 'EXECUTE')
        UNION ALL SELECT 'its owner ' || quote_ident(r.rolname)
                || ', for whom this role cannot make a table in that schema (it must be a member of the owner, both '
                || 'with the right to create there)'
            FROM target t JOIN pg_roles r ON r.oid = t.relowner
            WHERE NOT pg_has_role(t.relowner, 'USAGE') OR NOT has_schema_privilege(t.relnamespace, 'CREATE')
                OR (r.rolname <> current_user AND NOT (pg_has_role(t.relowner, CAST(:right AS text))
                    AND has_schema_privilege(t.relowner, t.relnamespace, 'CREATE')))
    ) AS found ORDER BY obstacle
""")


def obstacles(connection: Connection, table: Table) -> Sequence[str]:
    """Name everything for which the table cannot be replaced: it would be lost or broken, or cannot be made again."""
    return list(connection.execute(_OBSTACLES, {"table": table.oid, "right": _right(connection)}).scalars())


@attrs.frozen(kw_only=True)
class Piece:
    """Something of a table's structure, by which two tables are compared.

    Attributes:
        kind: `"column"`, `"table"` (a setting), `"constraint"`, `"index"`, `"index setting"`, `"statistics"`, `"self"`
            (a foreign key onto the table itself).
        name: Its name within the kind; for an index's setting the index's.
        part: Which setting; of a constraint its type; of statistics the schema; of an index `"UNIQUE"` or nothing.
        definition: What follows on the name, or on ALTER.
        undo: What follows on ALTER to take a setting back; None where every table has one.
    """

    kind: str
    name: str
    part: str
    definition: str
    undo: str | None


_PIECES = text("""
    WITH t AS (
        SELECT c.*, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = :table
    ),
    a AS (
        SELECT a.*, pg_get_expr(d.adbin, d.adrelid) AS expression
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = :table AND a.attnum > 0 AND NOT a.attisdropped
    ),
    i AS (
        SELECT i.*, c.relname, c.reloptions, c.reltablespace, t.nspname, t.relname AS tablename,
            EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x')) AS backs
        FROM t JOIN pg_index i ON i.indrelid = t.oid AND i.indisvalid JOIN pg_class c ON c.oid = i.indexrelid
    )
    SELECT 'column' AS kind, attname AS name, '' AS part, concat_ws(' ', format_type(atttypid, atttypmod),
            NULLIF(attcollation, 0)::regcollation, 'identity ' || NULLIF(CAST(attidentity AS text), ''),
            'generated ' || NULLIF(CAST(attgenerated AS text), '') || ' ' || expression) AS definition,
            NULL AS undo
        FROM a
    UNION ALL SELECT 'table', 'owner', '', format('OWNER TO %I', pg_get_userbyid(relowner)), NULL FROM t
    UNION ALL SELECT 'table', 'logged', '', CASE relpersistence WHEN 'u' THEN 'SET UNLOGGED' ELSE 'SET LOGGED' END, NULL
        FROM t
    UNION ALL SELECT 'table', 'access method', '', format('SET ACCESS METHOD %I', amname), NULL
        FROM t JOIN pg_am m ON m.oid = t.relam
    UNION ALL SELECT 'table', 'tablespace', '', format('SET TABLESPACE %I', s.spcname), NULL
        FROM t, pg_database d JOIN pg_tablespace s ON true
        WHERE d.datname = current_database() AND s.oid = COALESCE(NULLIF(t.reltablespace, 0), d.dattablespace)
    UNION ALL SELECT 'table', prefix || split_part(o, '=', 1), 'option',
            format('SET (%s%I = %L)', prefix, split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)),
            format('RESET (%s%I)', prefix, split_part(o, '=', 1))
        FROM (
            SELECT '' AS prefix, unnest(reloptions) AS o FROM t
            UNION ALL SELECT 'toast.', unnest(s.reloptions) FROM t JOIN pg_class s ON s.oid = t.reltoastrelid
        ) AS options
    UNION ALL SELECT 'table', attname, 'NOT NULL',
            format('ALTER %I %s NOT NULL', attname, CASE WHEN attnotnull THEN 'SET' ELSE 'DROP' END), NULL FROM a
    UNION ALL SELECT 'table', attname, 'DEFAULT', format('ALTER %I ', attname)
            || CASE WHEN expression IS NULL THEN 'DROP DEFAULT' ELSE 'SET DEFAULT ' || expression END, NULL
        FROM a WHERE attgenerated = '' AND attidentity = ''
    UNION ALL SELECT 'table', attname, 'STATISTICS',
            format('ALTER %I SET STATISTICS %s', attname, COALESCE(attstattarget, -1)), NULL FROM a
    UNION ALL SELECT 'table', attname, 'STORAGE', format('ALTER %I SET STORAGE %s', attname,
            CASE attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END),
            NULL
        FROM a
    UNION ALL SELECT 'table', attname, 'COMPRESSION', format('ALTER %I SET COMPRESSION %s', attname,
            CASE attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'default' END), NULL FROM a
    UNION ALL SELECT 'table', attname, 'option ' || split_part(o, '=', 1),
            format('ALTER %I SET (%s = %s)', attname, split_part(o, '=', 1), split_part(o, '=', 2)),
            format('ALTER %I RESET (%s)', attname, split_part(o, '=', 1))
        FROM a, unnest(a.attoptions) AS o
    UNION ALL SELECT CASE confrelid WHEN :table THEN 'self' ELSE 'constraint' END, conname, CAST(contype AS text),
            CASE confrelid WHEN :table THEN replace(pg_get_constraintdef(oid),
                    format(') REFERENCES %s(', confrelid::regclass), format(') REFERENCES %s(', CAST(:staging AS text)))
                ELSE pg_get_constraintdef(oid) END, NULL
        FROM pg_constraint WHERE conrelid = :table AND contype IN ('c', 'p', 'u', 'x', 'f')
    UNION ALL SELECT 'index', relname, CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END,
            substr(pg_get_indexdef(indexrelid), 1 + length(format('CREATE %sINDEX %I ON %I.%I ',
                CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, relname, nspname, tablename))), NULL
        FROM i WHERE NOT backs
    UNION ALL SELECT 'index setting', relname, 'tablespace', format('SET TABLESPACE %I', s.spcname), NULL
        FROM i, pg_database d JOIN pg_tablespace s ON true
        WHERE d.datname = current_database() AND s.oid = COALESCE(NULLIF(i.reltablespace, 0), d.dattablespace)
    UNION ALL SELECT 'index setting', relname, 'option ' || split_part(o, '=', 1),
            format('SET (%I = %L)', split_part(o, '=', 1), split_part(o, '=', 2)),
            format('RESET (%I)', split_part(o, '=', 1))
        FROM i, unnest(i.reloptions) AS o WHERE backs
    UNION ALL SELECT 'index setting', relname, 'statistics of ' || attnum,
            format('ALTER COLUMN %s SET STATISTICS %s', attnum, attstattarget),
            format('ALTER COLUMN %s SET STATISTICS -1', attnum)
        FROM i JOIN pg_attribute b ON b.attrelid = i.indexrelid WHERE b.attstattarget >= 0
    UNION ALL SELECT 'statistics', s.stxname, n.nspname, concat_ws(' ', (
                SELECT '(' || string_agg(kind, ', ' ORDER BY kind) || ')' FROM (
                    SELECT CASE k WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' WHEN 'm' THEN 'mcv' END
                    FROM unnest(s.stxkind) AS k) AS kinds (kind) WHERE kind IS NOT NULL),
            'ON ' || pg_get_statisticsobjdef_columns(s.oid)), NULL
        FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = :table
    UNION ALL SELECT 'statistics setting', s.stxname, n.nspname, 'SET STATISTICS ' || s.stxstattarget,
            'SET STATISTICS -1'
        FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
        WHERE s.stxrelid = :table AND s.stxstattarget >= 0
""")


def pieces(connection: Connection, table: Table, staging: str) -> Sequence[Piece]:
    """Take a table's structure apart.

    Args:
        connection: To its database.
        table: The table.
        staging: What a foreign key onto the table itself refers to in its definition, quoted.
    """
    rows = connection.execute(_PIECES, {"table": table.oid, "staging": staging}).mappings()
    return [Piece(**row) for row in rows]


_TRIMMINGS = text("""
    WITH t AS (
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS shown, c.relreplident, n.nspname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = :table
    ),
    i AS (
        SELECT i.*, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = :table AND i.indisvalid
    ),
    g AS (SELECT * FROM pg_trigger WHERE tgrelid = :table AND NOT tgisinternal)
    SELECT statement FROM (
        SELECT 1 AS place, format('COMMENT ON TABLE %s IS %L', shown, obj_description(oid, 'pg_class')) AS statement
            FROM t
        UNION ALL SELECT 1, format('COMMENT ON COLUMN %s.%I IS %L', shown, attname, col_description(attrelid, attnum))
            FROM t JOIN pg_attribute ON attrelid = t.oid
            WHERE attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NOT NULL
        UNION ALL SELECT 1, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, shown, d.description)
            FROM t JOIN pg_constraint c ON c.conrelid = t.oid
            JOIN pg_description d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = c.oid
        UNION ALL SELECT 1, format('COMMENT ON INDEX %I.%I IS %L', nspname, relname, d.description)
            FROM t, i JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = i.indexrelid
        UNION ALL SELECT 1, format('COMMENT ON STATISTICS %I.%I IS %L', n.nspname, s.stxname, d.description)
            FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
            JOIN pg_description d ON d.classoid = 'pg_statistic_ext'::regclass AND d.objoid = s.oid
            WHERE s.stxrelid = :table
        UNION ALL SELECT 2, pg_get_triggerdef(oid) FROM g
        UNION ALL SELECT 3, format('ALTER TABLE %s %s TRIGGER %I', shown, CASE tgenabled
                WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname)
            FROM t, g WHERE tgenabled <> 'O'
        UNION ALL SELECT 3, format('COMMENT ON TRIGGER %I ON %s IS %L', tgname, shown, d.description)
            FROM t, g JOIN pg_description d ON d.classoid = 'pg_trigger'::regclass AND d.objoid = g.oid
        UNION ALL SELECT 3, format('ALTER TABLE %s REPLICA IDENTITY %s', shown, CASE relreplident
                WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
                ELSE format('USING INDEX %I', (SELECT relname FROM i WHERE indisreplident)) END)
            FROM t WHERE relreplident <> 'd' AND (relreplident <> 'i' OR EXISTS (SELECT FROM i WHERE indisreplident))
        UNION ALL SELECT 3, format('ALTER TABLE %s CLUSTER ON %I', shown, relname) FROM t, i WHERE indisclustered
    ) AS found ORDER BY place
""")


def trimmings(connection: Connection, table: Table) -> Sequence[str]:
    """Give the statements that put comments, triggers and marks on a table that stands in this one's place."""
    return list(connection.execute(_TRIMMINGS, {"table": table.oid}).scalars())


_NOT_NULL = text("""
    SELECT a.attname, c.conname
    FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    WHERE c.conrelid = :table AND c.contype = 'n'
""")


def not_null_names(connection: Connection, table: Table) -> dict[str, str]:
    """Give the name of each column's NOT NULL, from PostgreSQL 18 on, where it has one."""
    return {row.attname: row.conname for row in connection.execute(_NOT_NULL, {"table": table.oid})}


@attrs.frozen(kw_only=True)
class OwnedSequence:
    """A sequence that gives a column its values.

    Attributes:
        oid: Its number.
        column: The column, bare.
        name: Its name, bare.
        shown: Schema and name, quoted.
        identity: Whether it is a part of the column (IDENTITY), or a thing of its own that the column owns (serial).
        options: What follows on ALTER SEQUENCE to make another one like it.
        rising: Whether its values grow.
        comment: The statement that gives it its comment, or None.
    """

    oid: int
    column: str
    name: str
    shown: str
    identity: bool
    options: str
    rising: bool
    comment: str | None


_SEQUENCES = text("""
    SELECT c.oid, a.attname AS column, c.relname AS name, format('%I.%I', n.nspname, c.relname) AS shown,
        d.deptype = 'i' AS identity, s.seqincrement > 0 AS rising,
        format('AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s %s', format_type(s.seqtypid, NULL),
            s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache,
            CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS options,
        format('COMMENT ON SEQUENCE %I.%I IS %L', n.nspname, c.relname,
            NULLIF(obj_description(c.oid, 'pg_class'), '')) AS comment
    FROM pg_depend d
        JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_sequence s ON s.seqrelid = c.oid
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = :table
        AND d.deptype IN ('a', 'i') AND NOT a.attisdropped
    ORDER BY c.relname
""")


def sequences(connection: Connection, table: Table) -> Sequence[OwnedSequence]:
    """Give the sequences that a table's columns own."""
    rows = connection.execute(_SEQUENCES, {"table": table.oid}).mappings()
    return [OwnedSequence(**row) for row in rows]


@attrs.frozen(kw_only=True)
class Grant:
    """A privilege that a role has on a table or a sequence.

    Attributes:
        privilege: Such as `"SELECT"`.
        column: The column, quoted, if it is on one alone.
        grantee: Who has it, quoted, or PUBLIC.
        grantor: Who gave it, quoted; None if the owner did, or this role cannot act for whoever did.
        option: Whether the grantee may give it to others.
    """

    privilege: str
    column: str | None
    grantee: str
    grantor: str | None
    option: bool


_GRANTS = text("""
    WITH acl AS (
        SELECT NULL AS attname, e.* FROM pg_class c, aclexplode(COALESCE(c.relacl, acldefault(
            CAST(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END AS "char"), c.relowner))) AS e WHERE c.oid = :table
        UNION ALL SELECT quote_ident(a.attname), e.* FROM pg_attribute a, aclexplode(a.attacl) AS e
            WHERE a.attrelid = :table AND NOT a.attisdropped
    )
    SELECT acl.privilege_type AS privilege, acl.attname AS column, acl.is_grantable AS option,
        CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS grantee,
        CASE WHEN acl.grantor <> c.relowner AND pg_has_role(acl.grantor, CAST(:right AS text))
                AND has_schema_privilege(acl.grantor, c.relnamespace, 'USAGE')
            THEN quote_ident(pg_get_userbyid(acl.grantor)) END AS grantor
    FROM acl, pg_class c WHERE c.oid = :table ORDER BY acl.grantor <> c.relowner, 1, 2, 4
""")


def grants(connection: Connection, oid: int) -> Sequence[Grant]:
    """Give the privileges on a table or a sequence, those of the owner first."""
    rows = connection.execute(_GRANTS, {"table": oid, "right": _right(connection)}).mappings()
    return [Grant(**row) for row in rows]


def _right(connection: Connection) -> str:
    # What it takes to act as another role.
    return "SET" if (connection.dialect.server_version_info or ()) >= (16,) else "MEMBER"
