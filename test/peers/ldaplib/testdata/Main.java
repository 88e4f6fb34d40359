import java.nio.charset.StandardCharsets;
import java.util.TreeSet;
import javax.naming.NamingEnumeration;
import javax.naming.NamingException;
import javax.naming.directory.SearchControls;
import javax.naming.directory.SearchResult;
import javax.naming.ldap.Control;
import javax.naming.ldap.ExtendedRequest;
import javax.naming.ldap.ExtendedResponse;
import javax.naming.ldap.LdapContext;
import javax.naming.ldap.PagedResultsControl;
import javax.naming.ldap.PagedResultsResponseControl;

/** Runs the page's function with JNDI, or asks what the function does not. */
class Main {
    static final String BASE = Directory.PEOPLE.substring(Directory.PEOPLE.indexOf(',') + 1);

    public static void main(String[] args) throws Exception {
        if (args[0].equals("login")) {
            String[] lines = new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n", -1);
            try {
                String login = Directory.login(lines[0], lines[1]);
                System.out.println(login == null ? "null" : "login " + login);
            } catch (NamingException e) {
                System.out.println(e.getClass().getSimpleName());
            }
            return;
        }
        LdapContext c = Directory.connect(Directory.READER, args[2]);
        String user = "uid=check-1," + Directory.PEOPLE;
        System.out.println("who am I: " + whoAmI(c));
        System.out.println("pages: " + paged(c, Integer.parseInt(args[1])));
        System.out.println("by memberOf: " + names(c, Directory.PEOPLE, "(&(mail=check-*)(memberOf={0}))", group("staff"), "uid"));
        System.out.println("by member: " + names(c, BASE, "(&(objectClass=groupOfNames)(member={0}))", user, "cn"));
        System.out.println("compare: " + (compare(c, user) ? "True" : "False") + " " + (compare(c, "uid=check-2," + Directory.PEOPLE) ? "True" : "False"));
        System.out.println("no entry: " + code(() -> c.getAttributes("uid=nobody," + Directory.PEOPLE)));
        System.out.println("wrong password: " + code(() -> Directory.connect(user, "abcd-efgh-ijkl-mnop")));
        System.out.println("empty password: " + code(() -> Directory.connect(user, "")));
    }

    static String group(String name) {
        return "cn=" + name + ",ou=groups," + BASE;
    }

    static SearchControls controls(int scope, String... attributes) {
        SearchControls controls = new SearchControls();
        controls.setSearchScope(scope);
        controls.setReturningAttributes(attributes);
        return controls;
    }

    static String names(LdapContext c, String base, String filter, String value, String attribute) throws NamingException {
        TreeSet<String> names = new TreeSet<>();
        NamingEnumeration<SearchResult> found = c.search(base, filter, new Object[] {value}, controls(SearchControls.SUBTREE_SCOPE, attribute));
        while (found.hasMore()) {
            names.add((String) found.next().getAttributes().get(attribute).get());
        }
        return String.join(" ", names);
    }

    /** JNDI sends a compare request for a search of one entry by a value without special characters that returns no attribute. */
    static boolean compare(LdapContext c, String member) throws NamingException {
        return c.search(member, "(uid=check-1)", controls(SearchControls.OBJECT_SCOPE)).hasMore();
    }

    static String paged(LdapContext c, int size) throws Exception {
        byte[] cookie = null;
        int pages = 0;
        int entries = 0;
        do {
            c.setRequestControls(new Control[] {new PagedResultsControl(size, cookie, Control.CRITICAL)});
            NamingEnumeration<SearchResult> found = c.search(Directory.PEOPLE, "(mail=check-*)", controls(SearchControls.SUBTREE_SCOPE, "uid"));
            while (found.hasMore()) {
                found.next();
                entries++;
            }
            pages++;
            cookie = ((PagedResultsResponseControl) c.getResponseControls()[0]).getCookie();
        } while (cookie != null);
        c.setRequestControls(null);
        return pages + " of " + entries + " entries";
    }

    static String whoAmI(LdapContext c) throws NamingException {
        ExtendedResponse answer = c.extendedOperation(new ExtendedRequest() {
            public String getID() {
                return "1.3.6.1.4.1.4203.1.11.3";
            }

            public byte[] getEncodedValue() {
                return null;
            }

            public ExtendedResponse createExtendedResponse(String id, byte[] value, int offset, int length) {
                byte[] name = java.util.Arrays.copyOfRange(value, offset, offset + length);
                return new ExtendedResponse() {
                    public String getID() {
                        return id;
                    }

                    public byte[] getEncodedValue() {
                        return name;
                    }
                };
            }
        });
        return new String(answer.getEncodedValue(), StandardCharsets.UTF_8);
    }

    interface Ask {
        void ask() throws Exception;
    }

    /** The code as it stands in JNDI's message: LDAP: error code 49. */
    static String code(Ask ask) throws Exception {
        try {
            ask.ask();
        } catch (NamingException e) {
            return e.getMessage().replaceAll("(?s).*error code (\\d+).*", "$1");
        }
        return "0";
    }
}
